/* fb_dsp.c - the back end for Cortex-M4F, M7, M33: DSP instructions and a single-precision FPU.
 *
 * Weights of convolutions, one byte each: for every group of 4 output channels c0..c3, for every depth pair (k, k'), word 0 holds
 * the halfwords 256 w[c0][k] + w[c1][k] and 256 w[c0][k'] + w[c1][k'], word 1 the same of c2 and c3.  SMLAD of the raw word adds
 * up 256 acc(c0) + acc(c1), SMLAD of its sign-extended low bytes acc(c1); the difference is 256 acc(c0), exact modulo 2^32 while
 * |acc(c0)| < 2^23; the 256 goes into the scale, a power of two, so that no bit changes.  One SXTB16 for four weights.
 * Activations are widened once a tile to halfword pairs (0, 2) (1, 3) of every four codes, two pixels interleaved; the rows of a
 * kernel end on their own.  Tile: 4 channels x 2 pixels, 8 accumulators, 12 instructions for 16 products.
 * y = sat8(rhe(acc * scale) + zy) by VCVTR; |acc * scale| < 32000 is the packer's condition. */
#include "fb.h"

static const void *weights_of(const fb_conv *l, const uint32_t *data) { return (const uint8_t *)data + l->weights; }
static const void *consts_of(const fb_conv *l, const uint32_t *data) { return (const uint8_t *)data + l->consts; }

#include <arm_acle.h>
#include <string.h>
static inline uint32_t ld32(const int8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
} /* unaligned ldr is fine here */
#define SX(v) ((uint32_t)__sxtb16((int8x4_t)(v)))
static inline uint32_t SXR(uint32_t v) {
    uint32_t r;
    __asm("sxtb16 %0,%1,ror #8" : "=r"(r) : "r"(v));
    return r;
} /* gcc 12 does not fold the rotation */

/* depth pairs of one kernel row of nb contiguous bytes: (0,2)(1,3) per word; tail 1:(0,-) 2:(0,-)(1,-) 3:(0,2)(1,-) */
static int row_pairs(int nb) {
    int t = nb & 3;
    return (nb >> 2) * 2 + (t == 0 ? 0 : t == 1 ? 1 : 2);
}
static int rowbytes(const fb_conv *l) { return l->kw * l->c; }
static int npairs(const fb_conv *l) { return l->kh * row_pairs(rowbytes(l)); }

/* Constants of four channels: int32 start[4] = {256 b0 + b1, b1, 256 b2 + b3, b3}, float scale[4] = {s0 / 256, s1, s2 / 256, s3}.
 */

/* ---- 4 channels x 2 pixels, all channel groups; two output pixels ostride apart (0: one pixel, second ignored) ---- */
typedef struct {
    const void *w, *cst;
    const uint32_t *col, *colend;
    uint32_t np;
    int8_t *out;
    uint32_t ostride;
    int8_t *oend;
    uint32_t zp2;
} gemm_arg;
void fb_dsp_gemm2(const gemm_arg *a);
void fb_dsp_gemv(const gemm_arg *a);
#define BLK2                                                                                                                     \
    " ldrd r10,r11,[r0],#8\n ldrd r12,lr,[r1],#8\n"                                                                              \
    " smlad r2,r12,r10,r2\n smlad r6,r12,r11,r6\n smlad r4,lr,r10,r4\n smlad r8,lr,r11,r8\n"                                     \
    " sxtb16 r12,r12\n sxtb16 lr,lr\n"                                                                                           \
    " smlad r3,r12,r10,r3\n smlad r7,r12,r11,r7\n smlad r5,lr,r10,r5\n smlad r9,lr,r11,r9\n"
#define LDSC " vldmia r0!,{s12-s15}\n"
#define ZW(z) ((uint16_t)(z) * 0x10001u)
__asm(".syntax unified\n .thumb\n .section .text.fb_dsp_gemm2,\"ax\",%progbits\n .balign 4\n .global fb_dsp_gemm2\n .type "
      "fb_dsp_gemm2,%function\n .thumb_func\nfb_dsp_gemm2:\n"
      " push {r4-r11,lr}\n ldm r0,{r1-r9}\n push {r7-r9}\n push {r6}\n" /* sp: out, ostride, oend, zp2 */
      /* r1=w r2=cst r3=col r4=colend r5=np r6=out r7=ostride r8=oend r9=zp2 */
      " vmov s8,r2\n vmov s9,r3\n vmov s10,r4\n"
      " adr r12,2f\n rsb r5,r5,#0\n and r5,r5,#3\n mov r6,#48\n mla r12,r5,r6,r12\n orr r12,r12,#1\n vmov s11,r12\n"
      "1: vmov r0,s8\n ldm r0!,{r2-r5}\n " LDSC " vmov s8,r0\n"
      " mov r6,r2\n mov r7,r3\n mov r8,r4\n mov r9,r5\n vmov r12,s11\n vmov r0,s9\n bx r12\n .balign 4\n"
      "2:\n" BLK2 BLK2 BLK2 BLK2 " vmov r12,s10\n cmp r0,r12\n bne 2b\n"
      " subs r2,r2,r3\n subs r4,r4,r5\n subs r6,r6,r7\n sub r8,r8,r9\n"
      " vmov s0,s1,r2,r3\n vmov s2,s3,r4,r5\n vmov s4,s5,r6,r7\n vmov s6,s7,r8,r9\n"
      " vcvt.f32.s32 s0,s0\n vcvt.f32.s32 s1,s1\n vcvt.f32.s32 s2,s2\n vcvt.f32.s32 s3,s3\n"
      " vcvt.f32.s32 s4,s4\n vcvt.f32.s32 s5,s5\n vcvt.f32.s32 s6,s6\n vcvt.f32.s32 s7,s7\n"
      " vmul.f32 s0,s0,s12\n vmul.f32 s1,s1,s13\n vmul.f32 s2,s2,s14\n vmul.f32 s3,s3,s15\n"
      " vmul.f32 s4,s4,s12\n vmul.f32 s5,s5,s13\n vmul.f32 s6,s6,s14\n vmul.f32 s7,s7,s15\n"
      " vcvtr.s32.f32 s0,s0\n vcvtr.s32.f32 s1,s1\n vcvtr.s32.f32 s2,s2\n vcvtr.s32.f32 s3,s3\n"
      " vcvtr.s32.f32 s4,s4\n vcvtr.s32.f32 s5,s5\n vcvtr.s32.f32 s6,s6\n vcvtr.s32.f32 s7,s7\n"
      " vmov r2,r3,s0,s1\n vmov r4,r5,s2,s3\n vmov r6,r7,s4,s5\n vmov r8,r9,s6,s7\n"
      " pkhbt r2,r2,r4,lsl #16\n pkhbt r3,r3,r5,lsl #16\n pkhbt r6,r6,r8,lsl #16\n pkhbt r7,r7,r9,lsl #16\n"
      " pop {r10}\n ldm sp,{r11,r12,lr}\n"
      " sadd16 r2,r2,lr\n sadd16 r3,r3,lr\n sadd16 r6,r6,lr\n sadd16 r7,r7,lr\n" /* + zy + 128 */
      " usat16 r2,#8,r2\n usat16 r3,#8,r3\n usat16 r6,#8,r6\n usat16 r7,#8,r7\n"
      " orr r6,r6,r7,lsl #8\n orr r2,r2,r3,lsl #8\n eor r6,r6,#0x80808080\n eor r2,r2,#0x80808080\n"
      " str r6,[r10,r11]\n str r2,[r10],#4\n push {r10}\n cmp r10,r12\n bne 1b\n"
      " add sp,sp,#16\n pop {r4-r11,pc}\n .size fb_dsp_gemm2,.-fb_dsp_gemm2\n");

/* ---- 4 channels x 1 pixel (fully connected): 14 instructions per 16 MACs; np a multiple of 4 ---- */
#define BLK1                                                                                                                     \
    " ldrd r10,r11,[r0],#8\n ldm r1!,{r6-r9}\n"                                                                                  \
    " smlad r2,r6,r10,r2\n smlad r4,r7,r10,r4\n smlad r2,r8,r11,r2\n smlad r4,r9,r11,r4\n"                                       \
    " sxtb16 r6,r6\n sxtb16 r7,r7\n sxtb16 r8,r8\n sxtb16 r9,r9\n"                                                               \
    " smlad r3,r6,r10,r3\n smlad r5,r7,r10,r5\n smlad r3,r8,r11,r3\n smlad r5,r9,r11,r5\n"
__asm(".section .text.fb_dsp_gemv,\"ax\",%progbits\n .balign 4\n .global fb_dsp_gemv\n .type fb_dsp_gemv,%function\n "
      ".thumb_func\nfb_dsp_gemv:\n"
      " push {r4-r11,lr}\n ldm r0,{r1-r9}\n push {r7-r9}\n push {r6}\n"
      " vmov s8,r2\n vmov s9,r3\n mov lr,r4\n"
      "1: vmov r0,s8\n ldm r0!,{r2-r5}\n vldmia r0!,{s12-s15}\n vmov s8,r0\n vmov r0,s9\n"
      "2:\n" BLK1 BLK1 " cmp r0,lr\n bne 2b\n"
      " subs r2,r2,r3\n subs r4,r4,r5\n vmov s0,s1,r2,r3\n vmov s2,s3,r4,r5\n"
      " vcvt.f32.s32 s0,s0\n vcvt.f32.s32 s1,s1\n vcvt.f32.s32 s2,s2\n vcvt.f32.s32 s3,s3\n"
      " vmul.f32 s0,s0,s12\n vmul.f32 s1,s1,s13\n vmul.f32 s2,s2,s14\n vmul.f32 s3,s3,s15\n"
      " vcvtr.s32.f32 s0,s0\n vcvtr.s32.f32 s1,s1\n vcvtr.s32.f32 s2,s2\n vcvtr.s32.f32 s3,s3\n"
      " vmov r2,r3,s0,s1\n vmov r4,r5,s2,s3\n pkhbt r2,r2,r4,lsl #16\n pkhbt r3,r3,r5,lsl #16\n"
      " pop {r10}\n ldm sp,{r11,r12}\n ldr r6,[sp,#8]\n"
      " sadd16 r2,r2,r6\n sadd16 r3,r3,r6\n usat16 r2,#8,r2\n usat16 r3,#8,r3\n orr r2,r2,r3,lsl #8\n eor r2,r2,#0x80808080\n"
      " str r2,[r10],#4\n push {r10}\n cmp r10,r12\n bne 1b\n"
      " add sp,sp,#16\n pop {r4-r11,pc}\n .size fb_dsp_gemv,.-fb_dsp_gemv\n");

/* widen nw words of s8 to pairs, S = words between pairs (2: interleaved pixel, 1: alone) */
#define WIDEN(S)                                                                                                                 \
    static inline uint32_t *widen##S(const int8_t *s, int nw, uint32_t *d) {                                                     \
        for (; nw >= 4; nw -= 4, s += 16, d += 8 * S) {                                                                          \
            uint32_t a = ld32(s), b = ld32(s + 4), c = ld32(s + 8), e = ld32(s + 12);                                            \
            d[0] = SX(a);                                                                                                        \
            d[S] = SXR(a);                                                                                                       \
            d[2 * S] = SX(b);                                                                                                    \
            d[3 * S] = SXR(b);                                                                                                   \
            d[4 * S] = SX(c);                                                                                                    \
            d[5 * S] = SXR(c);                                                                                                   \
            d[6 * S] = SX(e);                                                                                                    \
            d[7 * S] = SXR(e);                                                                                                   \
        }                                                                                                                        \
        for (; nw > 0; nw--, s += 4, d += 2 * S) {                                                                               \
            uint32_t a = ld32(s);                                                                                                \
            d[0] = SX(a);                                                                                                        \
            d[S] = SXR(a);                                                                                                       \
        }                                                                                                                        \
        return d;                                                                                                                \
    }
WIDEN(1) WIDEN(2) static inline uint32_t *fill2(uint32_t v, int np, uint32_t *d) {
    for (; np > 0; np--, d += 2)
        *d = v;
    return d;
}
static uint32_t *widen_tail(const int8_t *s, int nb, uint32_t *d) { /* one row of nb bytes, any nb */
    d = widen2(s, nb >> 2, d);
    s += nb & ~3;
    switch (nb & 3) {
    case 1:
        d[0] = (uint16_t)s[0];
        d += 2;
        break;
    case 2:
        d[0] = (uint16_t)s[0];
        d[2] = (uint16_t)s[1];
        d += 4;
        break;
    case 3:
        d[0] = (uint16_t)s[0] | (uint32_t)s[2] << 16;
        d[2] = (uint16_t)s[1];
        d += 4;
        break;
    }
    return d;
}
/* patch of output pixel (oy,ox) as pairs at d, stride 2 words */
static void patch(const fb_conv *l, const int8_t *x, int oy, int ox, uint32_t *d) {
    int C = l->c, W = l->w, nb = rowbytes(l), iy = oy * l->sh - l->pt, ix = ox * l->sw - l->pl;
    int lo = ix < 0 ? -ix : 0, hi = ix + l->kw > W ? W - ix : l->kw;
    uint32_t z = (uint16_t)l->zx * 0x10001u;
    const int8_t *p = x + (iy * W + ix) * C;
    if ((C & 3) && lo == 0 && hi == l->kw && iy >= 0 && iy + l->kh <= l->h) { /* first layers, interior */
        int nw = nb >> 2, t = nb & 3, rs = W * C - (nb & ~3);
        for (int r = l->kh; r > 0; r--, p += rs) {
            for (int i = nw; i > 0; i--, p += 4, d += 4) {
                uint32_t a = ld32(p);
                d[0] = SX(a);
                d[2] = SXR(a);
            }
            if (t == 1) {
                d[0] = (uint16_t)p[0];
                d += 2;
            } else if (t) {
                d[0] = (uint16_t)p[0] | (t == 3 ? (uint32_t)p[2] << 16 : 0);
                d[2] = (uint16_t)p[1];
                d += 4;
            }
        }
        return;
    }
    for (int r = l->kh; r > 0; r--, iy++, p += W * C) {
        if ((unsigned)iy >= (unsigned)l->h) {
            d = fill2(z, row_pairs(nb), d);
            continue;
        }
        if ((C & 3) == 0) {
            if (lo)
                d = fill2(z, lo * C >> 1, d);
            d = widen2(p + lo * C, (hi - lo) * C >> 2, d);
            if (hi < l->kw)
                d = fill2(z, (l->kw - hi) * C >> 1, d);
        } else if (lo == 0 && hi == l->kw)
            d = widen_tail(p, nb, d);
        else {
            int8_t t[64];
            memset(t, l->zx, (unsigned)nb);
            for (int i = lo * C; i < hi * C; i++)
                t[i] = p[i];
            d = widen_tail(t, nb, d);
        }
    }
}

void fb_conv_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    uint32_t *col = tmp;
    int np = npairs(l), n = l->oh * l->ow, co4 = (l->co + 3) & ~3;
    gemm_arg a = {weights_of(l, data), consts_of(l, data), col, col + np * 2, (uint32_t)np, y, (uint32_t)l->co, 0,
                  ZW(l->zy + 128)};
    int one = l->kh == 1 && l->kw == 1 && l->sh == 1 && l->sw == 1 && (l->c & 3) == 0, ox = 0, oy = 0;
    for (int i = 0; i < n; i += 2, y += 2 * l->co) {
        int two = i + 1 < n;
        if (one) {
            widen2(x, l->c >> 2, col);
            if (two)
                widen2(x + l->c, l->c >> 2, col + 1);
            x += 2 * l->c;
        } else
            for (int j = 0; j <= two; j++) {
                patch(l, x, oy, ox, col + j);
                if (++ox == l->ow)
                    ox = 0, oy++;
            }
        a.out = y;
        a.oend = y + co4;
        if (!two)
            a.ostride = 0;
        fb_dsp_gemm2(&a);
    }
}

void fb_fc_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) { /* C a multiple of 8 */
    uint32_t *col = tmp;
    widen1(x, l->c >> 2, col);
    gemm_arg a = {weights_of(l, data),
                  consts_of(l, data),
                  col,
                  col + l->c / 2,
                  (uint32_t)l->c / 2,
                  y,
                  0,
                  y + ((l->co + 3) & ~3),
                  (uint16_t)(l->zy + 128) * 0x10001u};
    fb_dsp_gemv(&a);
}

/* ---- depthwise 3x3, stride 1 or 2. Vertical pairs: P[x] = (row r, row r+1) of one channel as two int16, built once per
   input row pair for 4 channels; A = pairs of rows (2j-PT, 2j-PT+1), B = the next two rows.
   Record per channel, 32 bytes: (w0,w1) of columns 0..2, (w1,w2) of columns 0..2, bias', scale.
   stride 1: rows 2j and 2j+1 at once: y0 += A.(w0,w1) + B.lo*w2 ; y1 += A.hi*w0 + B.(w1,w2)  (12 MAC instructions per 18 MACs)
   stride 2: row j:                    y  += A.(w0,w1) + B.lo*w2 ; two columns at once */
typedef struct {
    uint32_t w01[3], w12[3];
    int32_t init;
    float scale;
} dwrec;

typedef struct {
    const dwrec *rec;
    const uint32_t *A, *B;
    uint32_t n4;
    uint32_t zp2;
    uint32_t o1, ostep;
    int8_t *out;
    uint32_t skip;
} dw_arg;
void fb_dsp_dw1(const dw_arg *a);
void fb_dsp_dw2(const dw_arg *a);
#define DW_HEAD(NAME)                                                                                                            \
    ".section .text." NAME ",\"ax\",%progbits\n .balign 4\n .global " NAME "\n .type " NAME ",%function\n .thumb_func\n" NAME    \
    ":\n"                                                                                                                        \
    " push {r4-r11,lr}\n ldm r0,{r2-r10}\n mov r11,#4\n push {r9-r11}\n push {r5}\n" /* sp: n4, out, skip, channels left */      \
    " mov r0,r3\n mov r1,r4\n vmov s8,r2\n vmov s13,r6\n vmov s14,r7\n vmov s15,r8\n"                                            \
    "1: vmov r12,s8\n ldm r12!,{r4-r9}\n vldmia r12!,{s9}\n vldmia r12!,{s11}\n vmov s8,r12\n vmov.f32 s10,s9\n"                 \
    " ldrd r12,lr,[sp]\n add r12,r12,r0\n vmov s12,r12\n add r12,lr,#1\n str r12,[sp,#4]\n"                                      \
    "2: vmov r2,r3,s9,s10\n"
#define DW_TAIL                                                                                                                  \
    " vmov s0,s1,r2,r3\n vcvt.f32.s32 s0,s0\n vcvt.f32.s32 s1,s1\n vmul.f32 s0,s0,s11\n vmul.f32 s1,s1,s11\n"                    \
    " vcvtr.s32.f32 s0,s0\n vcvtr.s32.f32 s1,s1\n vmov r2,r3,s0,s1\n vmov r10,r11,s12,s13\n"                                     \
    " pkhbt r2,r2,r3,lsl #16\n sadd16 r2,r2,r11\n ssat16 r2,#8,r2\n vmov r12,r11,s14,s15\n asrs r3,r2,#16\n"                     \
    " strb r3,[lr,r12]\n strb r2,[lr]\n add lr,lr,r11\n cmp r0,r10\n bne 2b\n"                                                   \
    " ldrd r2,r3,[sp,#8]\n add r0,r0,r2\n add r1,r1,r2\n subs r3,r3,#1\n str r3,[sp,#12]\n bne 1b\n"                             \
    " add sp,sp,#16\n pop {r4-r11,pc}\n"
__asm(DW_HEAD("fb_dsp_dw1") " ldrd r10,r11,[r0],#4\n ldr r12,[r0,#4]\n"
                            " smlad r2,r10,r4,r2\n smlatb r3,r10,r4,r3\n smlad r2,r11,r5,r2\n smlatb r3,r11,r5,r3\n smlad "
                            "r2,r12,r6,r2\n smlatb r3,r12,r6,r3\n"
                            " ldrd r10,r11,[r1],#4\n ldr r12,[r1,#4]\n"
                            " smlabt r2,r10,r7,r2\n smlad r3,r10,r7,r3\n smlabt r2,r11,r8,r2\n smlad r3,r11,r8,r3\n smlabt "
                            "r2,r12,r9,r2\n smlad r3,r12,r9,r3\n" DW_TAIL " .size fb_dsp_dw1,.-fb_dsp_dw1\n");
__asm(DW_HEAD("fb_dsp_dw2") " ldrd r10,r11,[r0],#8\n ldr r12,[r0],#4\n smlad r2,r10,r4,r2\n smlad r2,r11,r5,r2\n smlad "
                            "r2,r12,r6,r2\n smlad r3,r12,r4,r3\n"
                            " ldrd r10,r11,[r0],#4\n smlad r3,r10,r5,r3\n smlad r3,r11,r6,r3\n"
                            " ldrd r10,r11,[r1],#8\n ldr r12,[r1],#4\n smlabt r2,r10,r7,r2\n smlabt r2,r11,r8,r2\n smlabt "
                            "r2,r12,r9,r2\n smlabt r3,r12,r7,r3\n"
                            " ldrd r10,r11,[r1],#4\n smlabt r3,r10,r8,r3\n smlabt r3,r11,r9,r3\n" DW_TAIL
                            " .size fb_dsp_dw2,.-fb_dsp_dw2\n .text\n");
static int dw_wp(const fb_conv *l) { return l->sw == 1 ? l->ow + 2 : 2 * ((l->ow + 1) & ~1) + 1; }
static void pairs_row(const fb_conv *l, const int8_t *x, int r, uint32_t *d, int Wp, uint32_t zw) {
    const int8_t *p = (const int8_t *)&zw, *q = p;
    int sp = 0, sq = 0, W = l->w;
    if ((unsigned)r < (unsigned)l->h)
        p = x + r * W * l->c, sp = l->c;
    if ((unsigned)(r + 1) < (unsigned)l->h)
        q = x + (r + 1) * W * l->c, sq = l->c;
    uint32_t z = (uint16_t)l->zx * 0x10001u, *d2 = d + 2 * Wp;
    int i = 0;
    for (; i < l->pl; i++, d++, d2++)
        d[0] = d[Wp] = d2[0] = d2[Wp] = z;
    for (i = W; i > 0; i--, d++, d2++, p += sp, q += sq) {
        uint32_t a = ld32(p), b = ld32(q), a0 = SX(a), a1 = SXR(a), b0 = SX(b), b1 = SXR(b);
        d[0] = (a0 & 0xffff) | b0 << 16;
        d2[0] = (a0 >> 16) | (b0 & 0xffff0000u);
        d[Wp] = (a1 & 0xffff) | b1 << 16;
        d2[Wp] = (a1 >> 16) | (b1 & 0xffff0000u);
    }
    for (i = Wp - W - l->pl; i > 0; i--, d++, d2++)
        d[0] = d[Wp] = d2[0] = d2[Wp] = z;
}

/* C a multiple of 4. Stride 2 with odd OW writes C bytes past the end of y (slack needed). */
void fb_dw3_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    int C = l->c, Wp = dw_wp(l), s1 = l->sh == 1;
    uint32_t *A = tmp, *B = A + 4 * Wp, zw = (uint8_t)l->zx * 0x1010101u;
    dw_arg a = {weights_of(l, data),
                0,
                0,
                (uint32_t)(s1 ? l->ow * 4 : (Wp - 1) * 4),
                (uint16_t)l->zy * 0x10001u,
                (uint32_t)(s1 ? l->ow * C : C),
                (uint32_t)(s1 ? C : 2 * C),
                y,
                s1 ? 8 : 4};
    for (int c = 0; c < C; c += 4, a.rec += 4) {
        int r = -l->pt;
        pairs_row(l, x + c, r, A, Wp, zw);
        a.out = y + c;
        a.o1 = (uint32_t)(s1 ? l->ow * C : C);
        for (int oy = 0; oy < l->oh; oy += s1 ? 2 : 1) {
            r += 2;
            pairs_row(l, x + c, r, B, Wp, zw);
            a.A = A;
            a.B = B;
            if (s1) {
                if (oy + 1 == l->oh)
                    a.o1 = 0;
                fb_dsp_dw1(&a);
                a.out += 2 * l->ow * C;
            } else {
                fb_dsp_dw2(&a);
                a.out += l->ow * C;
            }
            uint32_t *t = A;
            A = B;
            B = t;
        }
    }
}
