/* fb_mve.c - the back end for Cortex-M55 and M85: MVE with floating point.
 *
 * Weights of convolutions: for every group of 4 output channels [k / 16][4 channels][16], the depth padded with zero weights; one
 * pointer walks the whole layer.  Windows are gathered, one row after another, two pixels at a time; a 1 x 1 kernel reads x in
 * place. Tile: 4 channels x 2 pixels; for 16 of depth 2 + 4 loads and 8 VMLADAVA into the eight even core registers, 14
 * instructions for 128 products.  That needs LR, so the loop is counted, unrolled four times and entered where the depth asks. Up
 * to 15 bytes behind x are read (times zero weights). */
#include "fb.h"

static const void *weights_of(const fb_conv *l, const uint32_t *data) { return (const uint8_t *)data + l->weights; }
static const void *consts_of(const fb_conv *l, const uint32_t *data) { return (const uint8_t *)data + l->consts; }

#include <arm_mve.h>
#include <string.h>
static int kvec(const fb_conv *l) { return (l->kh * l->kw * l->c + 15) >> 4; }
typedef struct {
    int32_t bias[4];
    float scale[4];
} grp4;

typedef struct {
    const int8_t *x0, *x1;
    const void *w;
    const void *cst;
    int32_t kv;
    int8_t *y0, *y1, *yend;
    int32_t zp;
} gemm_arg;
void fb_mve_gemm2(const gemm_arg *a);
void fb_mve_gemv(const gemm_arg *a);
#define W1(R0, R1) " vldrb.u8 q2,[r5],#16\n vmladava.s8 " R0 ",q0,q2\n vmladava.s8 " R1 ",q1,q2\n"
#define BLK " vldrb.u8 q0,[r1],#16\n vldrb.u8 q1,[r3],#16\n" W1("r0", "r8") W1("r2", "r10") W1("r4", "r12") W1("r6", "lr")
__asm(".syntax unified\n .thumb\n .section .text.fb_mve_gemm2,\"ax\",%progbits\n .balign 4\n .global fb_mve_gemm2\n .type "
      "fb_mve_gemm2,%function\n .thumb_func\nfb_mve_gemm2:\n"
      /* frame: [0]x0 [4]x1 [8]w [12]cst [16]kv [20]y0 [24]y1 [28]yend [32]zp [36]entry [40]iterations */
      " push {r4-r11,lr}\n sub sp,sp,#44\n ldm r0,{r1-r9}\n stm sp,{r1-r9}\n"
      " adr r10,2f\n rsb r11,r5,#0\n and r11,r11,#3\n mov r12,#56\n mla r10,r11,r12,r10\n orr r10,r10,#1\n add r5,r5,#3\n lsr "
      "r11,r5,#2\n"
      " strd r10,r11,[sp,#36]\n mov r5,r3\n mov r9,r4\n"
      "1: ldrd r1,r3,[sp]\n ldrd r11,r7,[sp,#36]\n ldrd r0,r2,[r9],#8\n ldrd r4,r6,[r9],#8\n mov r8,r0\n mov r10,r2\n mov "
      "r12,r4\n mov lr,r6\n bx r11\n .balign 4\n"
      "2:\n" BLK BLK BLK BLK " subs r7,r7,#1\n bne 2b\n"
      " vmov d0,r0,r2\n vmov d1,r4,r6\n vmov d2,r8,r10\n vmov d3,r12,lr\n"
      " vldrw.32 q2,[r9],#16\n ldrd r0,r2,[sp,#20]\n ldrd r4,r6,[sp,#28]\n"
      " vcvt.f32.s32 q0,q0\n vcvt.f32.s32 q1,q1\n vmul.f32 q0,q0,q2\n vmul.f32 q1,q1,q2\n vcvtn.s32.f32 q0,q0\n vcvtn.s32.f32 "
      "q1,q1\n"
      " vqmovnb.s32 q0,q0\n vqmovnt.s32 q0,q1\n vqadd.s16 q0,q0,r6\n vqmovnb.s16 q0,q0\n vshr.u32 q1,q0,#16\n"
      " vstrb.32 q1,[r2],#4\n vstrb.32 q0,[r0],#4\n strd r0,r2,[sp,#20]\n cmp r0,r4\n bne 1b\n"
      " add sp,sp,#44\n pop {r4-r11,pc}\n .size fb_mve_gemm2,.-fb_mve_gemm2\n");
#define V1(R0, Q) " vldrb.u8 " Q ",[r5],#16\n vmladava.s8 " R0 ",q0," Q "\n"
__asm(
    ".section .text.fb_mve_gemv,\"ax\",%progbits\n .balign 4\n .global fb_mve_gemv\n .type fb_mve_gemv,%function\n "
    ".thumb_func\nfb_mve_gemv:\n"
    " push {r4-r11,lr}\n ldm r0,{r1-r9}\n mov r11,r5\n mov r5,r3\n mov r10,r1\n mov r1,r9\n mov r9,r4\n mov r7,r6\n" /* x r10, w
                                                                                                                        r5, cst
                                                                                                                        r9, kv
                                                                                                                        r11, y r7,
                                                                                                                        yend r8,
                                                                                                                        zp r1 */
    "1: dls lr,r11\n mov r3,r10\n ldrd r0,r2,[r9],#8\n ldrd r4,r6,[r9],#8\n"
    "2: vldrb.u8 q0,[r3],#16\n" V1("r0", "q1") V1("r2", "q2") V1("r4", "q1")
        V1("r6", "q2") " le lr,2b\n"
                       " vmov d0,r0,r2\n vmov d1,r4,r6\n vldrw.32 q2,[r9],#16\n vcvt.f32.s32 q0,q0\n vmul.f32 q0,q0,q2\n "
                       "vcvtn.s32.f32 q0,q0\n"
                       " vqmovnb.s32 q0,q0\n vqadd.s16 q0,q0,r1\n vqmovnb.s16 q0,q0\n vstrb.32 q0,[r7],#4\n cmp r7,r8\n bne 1b\n"
                       " pop {r4-r11,pc}\n .size fb_mve_gemv,.-fb_mve_gemv\n");

/* patch of one pixel; rows copied in vectors, the overshoot of a row is overwritten by the next (16 bytes slack at the end) */
static inline void copyv(int8_t *d, const int8_t *s, int n) {
    do {
        vst1q_s8(d, vld1q_s8(s));
        d += 16;
        s += 16;
        n -= 16;
    } while (n > 0);
}
static inline void fillv(int8_t *d, int8x16_t z, int n) {
    do {
        vst1q_s8(d, z);
        d += 16;
        n -= 16;
    } while (n > 0);
}
static void patch(const fb_conv *l, const int8_t *x, int oy, int ox, int8_t *d) {
    int C = l->c, W = l->w, nb = l->kw * C, iy = oy * l->sh - l->pt, ix = ox * l->sw - l->pl;
    int lo = ix < 0 ? -ix * C : 0, hi = (ix + l->kw > W ? W - ix : l->kw) * C;
    int8x16_t z = vdupq_n_s8((int8_t)l->zx);
    const int8_t *p = x + (iy * W + ix) * C;
    if (lo == 0 && hi == nb && iy >= 0 && iy + l->kh <= l->h) {
        int rs = W * C, r = l->kh;
        if (nb <= 16)
            do {
                vst1q_s8(d, vld1q_s8(p));
                p += rs;
                d += nb;
            } while (--r);
        else
            do {
                copyv(d, p, nb);
                p += rs;
                d += nb;
            } while (--r);
        return;
    }
    for (int r = l->kh; r > 0; r--, iy++, p += W * C, d += nb) {
        if ((unsigned)iy >= (unsigned)l->h) {
            fillv(d, z, nb);
            continue;
        }
        if (lo)
            fillv(d, z, lo);
        copyv(d + lo, p + lo, hi - lo);
        if (hi < nb)
            fillv(d + hi, z, nb - hi);
    }
}

void fb_conv_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    int kv = kvec(l), n = l->oh * l->ow, co = l->co, co4 = (co + 3) & ~3,
        one = l->kh == 1 && l->kw == 1 && l->sh == 1 && l->sw == 1, ox = 0, oy = 0;
    int8_t *p0 = tmp, *p1 = p0 + kv * 16;
    gemm_arg a = {p0, p1, weights_of(l, data), consts_of(l, data), kv, y, y, 0, l->zy};
    for (int i = 0; i < n; i += 2, y += 2 * co) {
        int two = i + 1 < n;
        if (one) {
            a.x0 = x;
            a.x1 = x + l->c;
            x += 2 * l->c;
        } else {
            patch(l, x, oy, ox, p0);
            if (++ox == l->ow)
                ox = 0, oy++;
            if (two) {
                patch(l, x, oy, ox, p1);
                if (++ox == l->ow)
                    ox = 0, oy++;
            }
        }
        a.y0 = y;
        a.y1 = y + (two ? co : 0);
        a.yend = y + co4;
        if (!two)
            a.x1 = a.x0;
        fb_mve_gemm2(&a);
    }
}

void fb_fc_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    (void)tmp;
    gemm_arg a = {x, x, weights_of(l, data), consts_of(l, data), kvec(l), y, y, y + ((l->co + 3) & ~3), l->zy};
    /* gemv reads y (y0) and yend from the same slots as gemm2: y1 slot carries yend */
    a.y1 = a.yend;
    fb_mve_gemv(&a);
}

/* ---- depthwise 3x3. Window buffer: T[16 channels][16], slot 3*col+row, 5 columns x 3 rows per channel, filled with
   15 vector loads (16 channels each) and 15 byte scatters. Weights: 16 bytes per channel, w[3*col+row] then 7 zeros; reading
   them 3 (or 6) bytes early shifts the kernel by one (two) columns, so one window gives 3 pixels at stride 1, 2 at stride 2:
   one VMLADAV per output. 16 bytes of zeros precede the first channel. */

typedef struct {
    const int8_t *t;
    const int8_t *w;
    const void *cst;
    int8_t *y0, *y1, *y2;
    int32_t n4, zp;
} dw_arg;
void fb_mve_dw1(const dw_arg *a);
void fb_mve_dw2(const dw_arg *a);
#define D1(X, A, B, C, RA, RB, RC)                                                                                               \
    " vldrb.u8 q3,[r0,#" X "]\n vldrb.u8 q4,[r1,#" A "]\n vmladav.s8 " RA ",q3,q4\n vldrb.u8 q5,[r1,#" B "]\n vmladav.s8 " RB    \
    ",q3,q5\n vldrb.u8 q4,[r1,#" C "]\n vmladav.s8 " RC ",q3,q4\n"
#define D2(X, A, B, RA, RB)                                                                                                      \
    " vldrb.u8 q3,[r0,#" X "]\n vldrb.u8 q4,[r1,#" A "]\n vmladav.s8 " RA ",q3,q4\n vldrb.u8 q5,[r1,#" B "]\n vmladav.s8 " RB    \
    ",q3,q5\n"
#define DHEAD(N)                                                                                                                 \
    ".section .text." N ",\"ax\",%progbits\n .balign 4\n .global " N "\n .type " N ",%function\n .thumb_func\n" N ":\n"          \
    " push {r4-r11,lr}\n vpush {d8-d11}\n ldm r0,{r2-r9}\n mov r0,r2\n mov r1,r3\n mov r11,r9\n mov r9,r4\n mov lr,r8\n mov "    \
    "r3,r7\n mov r7,r6\n dls lr,lr\n1:\n"
__asm(
    DHEAD("fb_mve_dw1") D1("0", "0", "-3", "-6", "r2", "r4",
                           "r6") D1("16", "16", "13", "10", "r8", "r10",
                                    "r12") " vmov d0,r2,r8\n vmov d2,r4,r10\n vmov d4,r6,r12\n" D1("32", "32", "29", "26", "r2",
                                                                                                   "r4", "r6")
        D1("48", "48", "45", "42", "r8", "r10",
           "r12") " vmov d1,r2,r8\n vmov d3,r4,r10\n vmov d5,r6,r12\n"
                  " vldrw.32 q3,[r9],#16\n vldrw.32 q4,[r9],#16\n vadd.i32 q0,q0,q3\n vadd.i32 q1,q1,q3\n vadd.i32 q2,q2,q3\n"
                  " vcvt.f32.s32 q0,q0\n vcvt.f32.s32 q1,q1\n vcvt.f32.s32 q2,q2\n vmul.f32 q0,q0,q4\n vmul.f32 q1,q1,q4\n "
                  "vmul.f32 q2,q2,q4\n"
                  " vcvtn.s32.f32 q0,q0\n vcvtn.s32.f32 q1,q1\n vcvtn.s32.f32 q2,q2\n"
                  " vqmovnb.s32 q0,q0\n vqmovnt.s32 q0,q1\n vqmovnb.s32 q2,q2\n vqadd.s16 q0,q0,r11\n vqadd.s16 q2,q2,r11\n "
                  "vqmovnb.s16 q0,q0\n vqmovnb.s16 q2,q2\n vshr.u32 q1,q0,#16\n"
                  " vstrb.32 q2,[r3],#4\n vstrb.32 q1,[r7],#4\n vstrb.32 q0,[r5],#4\n add r0,r0,#64\n add r1,r1,#64\n le lr,1b\n"
                  " vpop {d8-d11}\n pop {r4-r11,pc}\n .size fb_mve_dw1,.-fb_mve_dw1\n");
__asm(DHEAD("fb_mve_dw2") D2("0", "0", "-6", "r2", "r4")
          D2("16", "16", "10", "r8", "r10") " vmov d0,r2,r8\n vmov d2,r4,r10\n" D2("32", "32", "26", "r2", "r4")
              D2("48", "48", "42", "r8",
                 "r10") " vmov d1,r2,r8\n vmov d3,r4,r10\n"
                        " vldrw.32 q3,[r9],#16\n vldrw.32 q4,[r9],#16\n vadd.i32 q0,q0,q3\n vadd.i32 q1,q1,q3\n"
                        " vcvt.f32.s32 q0,q0\n vcvt.f32.s32 q1,q1\n vmul.f32 q0,q0,q4\n vmul.f32 q1,q1,q4\n vcvtn.s32.f32 "
                        "q0,q0\n vcvtn.s32.f32 q1,q1\n"
                        " vqmovnb.s32 q0,q0\n vqmovnt.s32 q0,q1\n vqadd.s16 q0,q0,r11\n vqmovnb.s16 q0,q0\n vshr.u32 q1,q0,#16\n"
                        " vstrb.32 q1,[r7],#4\n vstrb.32 q0,[r5],#4\n add r0,r0,#64\n add r1,r1,#64\n le lr,1b\n"
                        " vpop {d8-d11}\n pop {r4-r11,pc}\n .size fb_mve_dw2,.-fb_mve_dw2\n .text\n");

void fb_dw3_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) { /* C a multiple of 4 */
    int C = l->c, W = l->w, rs = W * C, s = l->sw, step = s == 1 ? 3 : 2;
    int8_t *T = tmp;
    uint8x16_t off = vshlq_n_u8(vidupq_n_u8(0, 1), 4);
    int8x16_t z = vdupq_n_s8((int8_t)l->zx);
    for (int c = 0; c < C; c += 16) {
        dw_arg a = {T,
                    (const int8_t *)weights_of(l, data) + c * 16,
                    (const grp4 *)consts_of(l, data) + (c >> 2),
                    0,
                    0,
                    0,
                    (C - c >= 16 ? 16 : C - c) >> 2,
                    l->zy};
        for (int oy = 0; oy < l->oh; oy++) {
            int iy = oy * s - l->pt;
            const int8_t *row = x + c + iy * rs;
            int top = iy<0, bot = iy + 3> l->h;
            int8_t *yo = y + c + oy * l->ow * C;
            for (int ox = 0; ox < l->ow; ox += step, yo += step * C) {
                int ix = ox * s - l->pl, n = l->ow - ox;
                if (n > step)
                    n = step;
                int cols = (n - 1) * s + 3;
                int8_t *t = T;
                const int8_t *p = row + ix * C;
                for (; cols > 0; cols--, ix++, p += C, t += 3) {
                    if ((unsigned)ix >= (unsigned)W) {
                        vstrbq_scatter_offset_s8(t, off, z);
                        vstrbq_scatter_offset_s8(t + 1, off, z);
                        vstrbq_scatter_offset_s8(t + 2, off, z);
                        continue;
                    }
                    vstrbq_scatter_offset_s8(t, off, top ? z : vld1q_s8(p));
                    vstrbq_scatter_offset_s8(t + 1, off, vld1q_s8(p + rs));
                    vstrbq_scatter_offset_s8(t + 2, off, bot ? z : vld1q_s8(p + 2 * rs));
                }
                a.y0 = yo;
                a.y1 = n > 1 ? yo + C : yo;
                a.y2 = n > 2 ? yo + 2 * C : yo;
                if (s == 1)
                    fb_mve_dw1(&a);
                else
                    fb_mve_dw2(&a);
            }
        }
    }
}
