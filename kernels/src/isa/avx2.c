/* avx2.c - the kernels for x86-64 with AVX2, FMA and F16C: int8 dots by pmaddwd on widened operands; the rest is avx2.h.
 *
 * Compile with -mavx2 -mfma -mf16c -ffp-contract=off; without those flags the table is absent.
 */
#include "../isa.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "avx2.h"

/* ---- int8 weights ---- */

/* A panel [kp/4][16][4] of int8 to int16 [kp/2][16][2]: byte to the high half, arithmetic shift down. */
static void widen_panel(int16_t *d, const int8_t *p, int64_t kp) {
    const vi o = _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400, 0x08000800, 0x0c000c00);
    const vi lo = _mm256_add_epi8(o, viset(0x01ff00ff)), hi = _mm256_add_epi8(o, viset(0x03ff02ff));
    for (int64_t k = 0; k < kp; k += 4, p += 64, d += 64) {
        const vi w0 = LD(p), w1 = LD(p + 32);
        _mm256_store_si256((void *)d, _mm256_srai_epi16(_mm256_shuffle_epi8(w0, lo), 8));
        _mm256_store_si256((void *)(d + 16), _mm256_srai_epi16(_mm256_shuffle_epi8(w1, lo), 8));
        _mm256_store_si256((void *)(d + 32), _mm256_srai_epi16(_mm256_shuffle_epi8(w0, hi), 8));
        _mm256_store_si256((void *)(d + 48), _mm256_srai_epi16(_mm256_shuffle_epi8(w1, hi), 8));
    }
}
/* The sum in assembler: gcc adds to the product's register and then moves it, one instruction more of each three. */
#define MAC(s, w, x) __asm__ volatile("vpaddd %1, %0, %0" : "+x"(s) : "x"(_mm256_madd_epi16(w, x)))
/* PIN hides what a pointer is: without it gcc hoists loads and products over a switch, and spills. */
#define PIN(p) __asm__ volatile("" : "+r"(p))

/* Two products by one multiplication (Winograd 1968):  x0 w0 + x1 w1 = (x0 + w1)(x1 + w0) - x0 x1 - w0 w1.  pmaddwd does it for
 * four k and 8 rows; the products of tokens alone and of weights alone are taken off once.  pmaddwd and paddd alone reach 80 % of
 * what Zen's four pipes can do, since additions take the two pipes that multiply; with two cheap additions for every other
 * multiplication they are all busy (+24 %).  On three pipes both ways take the same number of operations.
 *
 * All sums are modulo 2^32, and the result is what int32 holds. */
enum { PAIRED = FR_BLOCK / 2 * FR_PANEL }; /* dwords of a block of a paired panel */
/* Odd and even bytes of the dwords of v as pairs of int16. */
INLINE vi odd_bytes(vi v) { return _mm256_srai_epi16(v, 8); }
INLINE vi even_bytes(vi v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }

/* A panel [kp/4][16][4] of int8, its blocks step bytes apart, to pairs of int16 [kp/4][odd, even][16][2]; less[nb][16] or, by
 * token, less[16]: minus the sums of w0 w1 over blocks. */
static void pair_panel(int16_t *d, int32_t *less, const int8_t *p, int64_t step, int64_t nb, const int blocked) {
    vi l0 = viset(0), l1 = viset(0);
    for (int64_t b = 0; b < nb; b++, p += step) {
        for (int k = 0; k < 8; k++, d += 64) {
            const vi w0 = LD(p + 64 * k), w1 = LD(p + 64 * k + 32), o0 = odd_bytes(w0), o1 = odd_bytes(w1), e0 = even_bytes(w0),
                     e1 = even_bytes(w1);
            _mm256_store_si256((void *)d, o0);
            _mm256_store_si256((void *)(d + 16), o1);
            _mm256_store_si256((void *)(d + 32), e0);
            _mm256_store_si256((void *)(d + 48), e1);
            l0 = visub(l0, _mm256_madd_epi16(o0, e0));
            l1 = visub(l1, _mm256_madd_epi16(o1, e1));
        }
        if (blocked || b + 1 == nb) {
            _mm256_store_si256((void *)less, l0);
            _mm256_store_si256((void *)(less + 8), l1);
            less += 16;
            l0 = l1 = viset(0);
        }
    }
}
/* What four tokens bring to a block, or to all blocks where there is one scale a token: the sums of x0 x1, and their scales. */
typedef struct four {
    int32_t less[4];
    float scale[4];
} four;
/* 32 k of four tokens, q bytes apart, to pairs of int16 [8][4][even, odd][2]; adds x0 x1 to l. */
INLINE void pair_block(int16_t *d, vi *l, const int8_t *const *q, int64_t at) {
    vi low[4], high[4]; /* fours of k 0, 1, 4, 5 and 2, 3, 6, 7 */
    UNROLL for (int i = 0; i < 4; i++) {
        const vi v = LD(q[i] + at), e = even_bytes(v), o = odd_bytes(v);
        low[i] = _mm256_unpacklo_epi32(e, o);
        high[i] = _mm256_unpackhi_epi32(e, o);
        l[i] = viadd(l[i], _mm256_madd_epi16(e, o));
    }
    UNROLL for (int k = 0; k < 4; k++) { /* fours of k k and k + 4 */
        const vi *v = k < 2 ? low : high;
        const vi a = k % 2 ? _mm256_unpackhi_epi64(v[0], v[1]) : _mm256_unpacklo_epi64(v[0], v[1]);
        const vi b = k % 2 ? _mm256_unpackhi_epi64(v[2], v[3]) : _mm256_unpacklo_epi64(v[2], v[3]);
        _mm256_store_si256((void *)(d + 16 * k), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256((void *)(d + 16 * (k + 4)), _mm256_permute2x128_si256(a, b, 0x31));
    }
}
/* Tokens to pairs of int16, by fours (the last ones again where there are no four): [m/4][kp/4][4][even, odd][2]; to[m/4][nb] or,
 * by token, to[m/4]. */
static void pair_tokens(int16_t *d, four *to, const fr_act8 *a, int64_t m0, int64_t m, const int blocked) {
    const int64_t nb = a->kp / FR_BLOCK, last = m0 + m - 1, steps = a->blocked ? nb : 1;
    for (int64_t i = m0; i <= last; i += 4) {
        const int8_t *q[4];
        const float *scale[4];
        vi l[4] = {viset(0), viset(0), viset(0), viset(0)};
        for (int r = 0; r < 4; r++) {
            const int64_t token = i + r < last ? i + r : last;
            q[r] = a->q + token * a->kp;
            scale[r] = a->scale + token * steps;
        }
        for (int64_t b = 0; b < nb; b++, d += 4 * FR_BLOCK) {
            pair_block(d, l, q, b * FR_BLOCK);
            if (blocked || b + 1 == nb) {
                const vi sum = _mm256_hadd_epi32(_mm256_hadd_epi32(l[0], l[1]), _mm256_hadd_epi32(l[2], l[3]));
                _mm_storeu_si128((void *)to->less, _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
                for (int r = 0; r < 4; r++) {
                    to->scale[r] = scale[r][a->blocked ? b : 0];
                    l[r] = viset(0);
                }
                to++;
            }
        }
    }
}

/* What w8_tile reads: a paired panel, four paired tokens, what to take off. */
typedef struct paired {
    const int16_t *w, *x;
    const int32_t *less;
    const four *four;
    const float *wscale; /* [16], or of every block */
    int64_t nb;
    const int8_t *next; /* weights to ask for, lines of 64 with every block of tokens: few tokens would wait for them */
    int64_t lines;
} paired;
/* One block of 16 rows x N tokens: eight steps of four k. */
INLINE void w8_block(vi *s0, vi *s1, const int16_t *w, const int16_t *x, const int N) {
    UNROLL for (int k = 0; k < 8; k++, w += 64, x += 16) {
        const vi o0 = LD(w), o1 = LD(w + 16), e0 = LD(w + 32), e1 = LD(w + 48);
        UNROLL for (int i = 0; i < N; i++) {
            const vi even = bc4(x + 4 * i), odd = bc4(x + 4 * i + 2);
            MAC(s0[i], _mm256_add_epi16(even, o0), _mm256_add_epi16(odd, e0));
            MAC(s1[i], _mm256_add_epi16(even, o1), _mm256_add_epi16(odd, e1));
        }
    }
}
/* 16 rows x N <= 4 tokens: 8 int32 accumulators, 4 weights, 2 broadcasts and 2 sums fill the 16 registers; the float sums of
 * blocks wait in memory. */
INLINE void w8_tile(float *t, const paired *p, const int N, const int blocked, const int scaled) {
    const int16_t *w = p->w, *x = p->x;
    const int32_t *less = p->less;
    const four *four = p->four;
    const float *wscale = p->wscale;
    vi s0[4], s1[4];
    vf f0[4], f1[4];
    UNROLL for (int i = 0; i < N; i++) {
        f0[i] = f1[i] = vset(0.0f);
        s0[i] = visub(LD(less), viset(four->less[i]));
        s1[i] = visub(LD(less + 8), viset(four->less[i]));
    }
    const char *next = (const char *)p->next;
    for (int64_t b = p->nb; b > 0; b--, w += 2 * PAIRED, x += 4 * FR_BLOCK) {
        for (int64_t l = p->lines; l > 0; l--, next += 64) {
            _mm_prefetch(next, _MM_HINT_T1);
        }
        w8_block(s0, s1, w, x, N);
        if (blocked) {
            UNROLL for (int i = 0; i < N; i++) {
                const vf s = vset(four->scale[i]);
                f0[i] = vfma(scaled ? vmul(vld(wscale), s) : s, vcvt(s0[i]), f0[i]);
                f1[i] = vfma(scaled ? vmul(vld(wscale + 8), s) : s, vcvt(s1[i]), f1[i]);
                KEEP(f0[i]);
                KEEP(f1[i]);
            }
            if (b > 1) {
                less += 16, four++, wscale += scaled ? 16 : 0;
                UNROLL for (int i = 0; i < N; i++) {
                    s0[i] = visub(LD(less), viset(four->less[i]));
                    s1[i] = visub(LD(less + 8), viset(four->less[i]));
                }
            }
        }
    }
    UNROLL for (int i = 0; i < N; i++) {
        const vf s = vset(four->scale[i]), w0 = vld(wscale), w1 = vld(wscale + 8);
        vst(t + 16 * i, scaled ? f0[i] : blocked ? vmul(f0[i], w0) : vmul(vcvt(s0[i]), vmul(w0, s)));
        vst(t + 16 * i + 8, scaled ? f1[i] : blocked ? vmul(f1[i], w1) : vmul(vcvt(s1[i]), vmul(w1, s)));
    }
}

/* Few tokens, weights straight from memory: S distant streams of panels (stride bytes apart) x N tokens.  |q| is the unsigned
 * operand and its sign moves to the weight; a pair is at most 2 * 127 * 127 < 2^15. */
INLINE void w8_direct(float *t, const int8_t *w, int64_t stride, const fr_act8 *a, int64_t m0, const int S, const int N,
                      const int scaled) {
    const int64_t nb = a->kp / FR_BLOCK, step = scaled ? FR_W8B_BLOCK : 512, ss = a->blocked ? 1 : 0, si = ss ? nb : 1;
    const vi one = _mm256_set1_epi16(1);
    vi s[12];
    vf f[12];
    UNROLL for (int i = 0; i < 2 * S * N; i++) {
        s[i] = viset(0);
        f[i] = vset(0.0f);
    }
    for (int64_t b = 0; b < nb; b++) {
        UNROLL for (int c = 0; c < 2 * S * N; c++) {
            const int h = c % 2, n = c / 2 % N;
            const int8_t *p = w + c / 2 / N * stride + b * step + 32 * h, *q = a->q + (m0 + n) * a->kp + b * FR_BLOCK;
            vi d = scaled || a->blocked ? viset(0) : s[c];
            UNROLL for (int k = 0; k < 8; k++) {
                const vi x = bc4(q + 4 * k);
                if (n == 0 && h == 0) {
                    _mm_prefetch((const char *)p + 64 * k + 1024, _MM_HINT_T1);
                }
                d = viadd(d,
                          _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(LD(p + 64 * k), x)), one));
                KEEP(d);
            }
            if (scaled) {
                const vf ws = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p - 32 * h + 512 + 16 * h)));
                f[c] = vfma(vmul(ws, vset(a->scale[(m0 + n) * si + b * ss])), vcvt(d), f[c]);
            } else if (a->blocked) {
                f[c] = vfma(vset(a->scale[(m0 + n) * nb + b]), vcvt(d), f[c]);
            } else {
                s[c] = d;
            }
        }
    }
    UNROLL for (int c = 0; c < 2 * S * N; c++) { vst(t + 8 * c, scaled || a->blocked ? f[c] : vcvt(s[c])); }
}

/* A panel of w8_direct's results: scales, epilogue, store. */
static void w8_finish(float *y, int64_t ldy, float *t, const fr_act8 *a, int64_t m0, int N, const float *wscale, int64_t p,
                      int64_t n, const fr_epilogue *e) {
    for (int i = 0; wscale && i < 2 * N; i++) {
        vf ws = vld(wscale + 16 * p + 8 * (i % 2));
        vst(t + 8 * i, vmul(vld(t + 8 * i), a->blocked ? ws : vmul(ws, vset(a->scale[m0 + i / 2]))));
    }
    finish_tile(y, ldy, t, 1, 16, N, m0, 16 * p, n, e);
}
#define DIRECT(S, N)                                                                                                             \
    do {                                                                                                                         \
        const int64_t l = (p1 - p0) / (S), ps = a->kp / FR_BLOCK * (scaled ? FR_W8B_BLOCK : 512);                                \
        for (int64_t p = p0; p < p0 + l; p++) {                                                                                  \
            w8_direct(t, w + p * ps, l * ps, a, m0, S, N, scaled);                                                               \
            for (int c = 0; c < (S); c++) {                                                                                      \
                w8_finish(y, ldy, t + 16 * (N) * c, a, m0, N, wscale, p + c * l, n, e);                                          \
            }                                                                                                                    \
        }                                                                                                                        \
        p0 += (S) * l;                                                                                                           \
    } while (0)
/* wscale: NULL where every block has scales of its own (scaled). */
INLINE void w8_few(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                   int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, const int scaled) {
    float t[96] __attribute__((aligned(64)));
    switch (m1 - m0) {
    case 1:
        DIRECT(4, 1);
        DIRECT(1, 1);
        break;
    case 2:
        DIRECT(2, 2);
        DIRECT(1, 2);
        break;
    case 3:
        DIRECT(1, 3);
        break;
    case 4:
        DIRECT(1, 4);
        break;
    case 5:
        DIRECT(1, 5);
        break;
    }
}
#undef DIRECT

/* Tokens i .. i + rows - 1 of panel p; g: the panel, and the tokens from i on. */
INLINE void w8_group(float *y, int64_t ldy, const paired *g, int64_t i, int64_t rows, int64_t p, int64_t n, const fr_epilogue *e,
                     int blocked, const int scaled) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(y, ldy, 1, 16, (int)rows, i, 16 * p, e);
    for (int64_t r = 0; r < rows; r += 4) {
        paired at = *g;
        at.x += r * g->nb * FR_BLOCK, at.four += r / 4 * (blocked ? g->nb : 1);
        at.next += r / 4 * g->nb * g->lines * 64;
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if (scaled || blocked) {                                                                                                 \
            w8_tile(t + 16 * r, &at, N, 1, scaled);                                                                              \
        } else {                                                                                                                 \
            w8_tile(t + 16 * r, &at, N, 0, 0);                                                                                   \
        }                                                                                                                        \
        break;
        switch (rows - r < 4 ? rows - r : 4) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
    }
    finish_tile(y, ldy, t, 1, 16, (int)rows, i, 16 * p, n, e);
}

INLINE void w8_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                       int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch, const int scaled) {
    if (m1 - m0 < 6) {
        w8_few(y, ldy, a, m0, m1, w, wscale, p0, p1, n, e, scaled);
        return;
    }
    const int blocked = scaled || a->blocked;
    const int64_t step = scaled ? FR_W8B_BLOCK : 512, ps = a->kp / FR_BLOCK * step;
    const int64_t kp = a->kp, nb = kp / FR_BLOCK, fours = (m1 - m0 + 3) / 4;
    int16_t *d = scratch, *tokens = d + 16 * kp;
    four *four = (void *)(tokens + 4 * fours * kp);
    int32_t *less = (void *)(four + fours * nb);
    float *scales = (void *)(less + 16 * nb);
    const int64_t lines = (8 + fours - 1) / fours; /* a panel has 8 a block */
    pair_tokens(tokens, four, a, m0, m1 - m0, blocked);
    for (int64_t p = p0; p < p1; p++) {
        const int8_t *next = w + (p + 1) * ps;
        pair_panel(d, less, w + p * ps, step, nb, blocked);
        for (int64_t h = 0; scaled && h < 2 * nb; h++) {
            const void *from = w + p * ps + h / 2 * step + 512 + h % 2 * 16;
            vst(scales + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128(from)));
        }
        for (int64_t i = m0, rows; i < m1; i += rows) {
            const int64_t r = i - m0;
            const paired g = {d,
                              tokens + r * kp,
                              less,
                              four + r / 4 * (blocked ? nb : 1),
                              scaled ? scales : wscale + 16 * p,
                              nb,
                              next + r / 4 * nb * lines * 64,
                              r < 32 && p + 1 < p1 ? lines : 0};
            rows = m1 - i < GROUP ? m1 - i : GROUP;
            w8_group(y, ldy, &g, i, rows, p, n, e, blocked, scaled);
        }
    }
}

static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    w8_product(y, ldy, a, m0, m1, w, wscale, p0, p1, n, e, scratch, 0);
}
static void gemm_w8b(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    w8_product(y, ldy, a, m0, m1, (const int8_t *)w, NULL, p0, p1, n, e, scratch, 1);
}

/* ---- int4 weights: with zero points (W4_P16), or with offsets (W4O_P16) ---- */

/* Zero points and scales of rows 8 h .. 8 h + 7 of a block. */
#define W4_BYTES(offset) ((offset) ? FR_W4O_BLOCK : FR_W4_BLOCK)
OP vi w4_zero(const uint8_t *c, int h) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(c + 288 + 8 * h))); }
OP vf w4_scale(const uint8_t *c, int h) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(c + 256 + 16 * h))); }
/* fma(wscale * scale, dot - zero * sum, f); s: int16 (eight steps of at most 3810 fit), of which the dot is the sum of pairs;
 * zero and sum fit the low 16 bits. */
OP vf w4_finish(vi s, vi zero, vf wscale, int32_t sum, float scale, vf f) {
    const vi d = visub(_mm256_madd_epi16(s, _mm256_set1_epi16(1)), _mm256_madd_epi16(zero, viset(sum)));
    return vfma(vmul(wscale, vset(scale)), vcvt(d), f);
}
OP vf w4_offset(const uint8_t *c, int h) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(c + 288 + 16 * h))); }
/* fma(scale, fma(wscale, dot, offset * sum), f) */
OP vf w4o_finish(vi s, vf offset, vf wscale, int32_t sum, float scale, vf f) {
    const vf d = vcvt(_mm256_madd_epi16(s, _mm256_set1_epi16(1)));
    return vfma(vset(scale), vfma(wscale, d, vmul(offset, vset((float)sum))), f);
}

/* Few tokens, weights straight from memory: S distant streams of panels x N tokens; results to t[S][N][16]. */
INLINE void w4_direct(float *t, const uint8_t *w, int64_t stride, const fr_act8 *a, int64_t m0, const int S, const int N,
                      const int offset) {
    const int64_t nb = a->kp / FR_BLOCK, step = a->blocked ? 1 : 0;
    const float *scale = a->scale + m0 * (a->blocked ? nb : 1);
    const int32_t *sum = a->sum + m0 * nb;
    const int8_t *x = a->q + m0 * a->kp;
    const vi m = _mm256_set1_epi8(15);
    vf f[8];
    UNROLL for (int c = 0; c < 2 * S * N; c++) { f[c] = vset(0.0f); }
    for (int64_t b = 0; b < nb; b++, w += W4_BYTES(offset), x += FR_BLOCK, sum++, scale += step) {
        UNROLL for (int c = 0; c < 2 * S; c++) {
            const uint8_t *block = w + c / 2 * stride;
            vi s[3], u[3];
            UNROLL for (int v = 0; v < 4; v++) {
                const vi q = LD(block + 64 * v + 32 * (c % 2)), low = viand(q, m), high = viand(_mm256_srli_epi16(q, 4), m);
                UNROLL for (int i = 0; i < N; i++) {
                    const vi d = _mm256_maddubs_epi16(low, bc4(x + i * a->kp + 4 * v));
                    const vi g = _mm256_maddubs_epi16(high, bc4(x + i * a->kp + 16 + 4 * v));
                    s[i] = v > 0 ? _mm256_add_epi16(s[i], d) : d;
                    u[i] = v > 0 ? _mm256_add_epi16(u[i], g) : g;
                    KEEP(s[i]);
                    KEEP(u[i]);
                }
                if (c % 2 == 0 || v == 0) { /* the 5 lines that a block touches */
                    _mm_prefetch((const char *)block + 960 + 64 * (c % 2 ? 4 : v), _MM_HINT_T1);
                }
            }
            UNROLL for (int i = 0; i < N; i++) {
                vf *to = f + c / 2 * N * 2 + 2 * i + c % 2;
                const vi d = _mm256_add_epi16(s[i], u[i]);
                const vf ws = w4_scale(block, c % 2);
                const float by = scale[i * (a->blocked ? nb : 1)];
                *to = offset ? w4o_finish(d, w4_offset(block, c % 2), ws, sum[i * nb], by, *to)
                             : w4_finish(d, w4_zero(block, c % 2), ws, sum[i * nb], by, *to);
            }
        }
    }
    UNROLL for (int c = 0; c < 2 * S * N; c++) { vst(t + 8 * c, f[c]); }
}

/* Many tokens.  They are the unsigned operand, plus 128, and the weights lose their zero points: a pair is at most
 * 2 * 255 * 15 < 2^15.  Sums are modulo 2^16 and start at -128 times the sum of their 16 weights, so that what they end at is the
 * exact 16 * 127 * 15 < 2^15 at most.  The 8 registers hold 16 rows x 16 k: of the two halves of a block's k, the first leaves
 * its sums in memory (8 rows x 32 k would broadcast every token twice and fill the load ports). */
typedef struct ready4 {
    int8_t w[2][4][2][32]; /* half, step of 4 k, half of the rows; code - zero */
    int16_t less[2][16];
    float scale[16], offset[16];
} ready4;
enum { W4_TILE = 96 };
static __attribute__((noinline)) void w4_prepare(ready4 *r, const uint8_t *block, int offset) {
    const vi m = _mm256_set1_epi8(15), bias = _mm256_set1_epi8(-128);
    const vi zero = offset ? viset(0) : _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(block + 288)));
    for (int h = 0; h < 2; h++) {
        vi less = viset(0);
        const vi rows =
            vior(_mm256_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606, 0x07070707),
                 _mm256_set1_epi8((char)(8 * h)));
        const vi z = _mm256_shuffle_epi8(zero, rows);
        UNROLL for (int v = 0; v < 4; v++) {
            const vi q = LD(block + 64 * v + 32 * h);
            const vi low = _mm256_sub_epi8(viand(q, m), z), high = _mm256_sub_epi8(viand(_mm256_srli_epi16(q, 4), m), z);
            _mm256_store_si256((void *)r->w[0][v][h], low);
            _mm256_store_si256((void *)r->w[1][v][h], high);
            less = _mm256_sub_epi16(less, _mm256_maddubs_epi16(bias, low));
            less = _mm256_sub_epi16(less, _mm256_maddubs_epi16(bias, high));
        }
        _mm256_store_si256((void *)r->less[h], less);
        vst(r->scale + 8 * h, w4_scale(block, h));
        if (offset) {
            vst(r->offset + 8 * h, w4_offset(block, h));
        }
    }
}
/* 16 k of a block for N tokens side by side, their bytes at x: adds to s[token][half of the rows]. */
INLINE void w4_steps(vi *s, const vi *w, const uint8_t *x, const int N) {
    UNROLL for (int v = 0; v < 4; v++) {
        UNROLL for (int c = 0; c < 2 * N; c++) {
            s[c] = _mm256_add_epi16(s[c], _mm256_maddubs_epi16(bc4(x + 32 * (c / 2) + 4 * v), w[2 * v + c % 2]));
            KEEP(s[c]);
        }
    }
}
INLINE void w4_first(int16_t *part, const ready4 *r, const vi *w, const uint8_t *x, const int N) {
    vi s[4];
    UNROLL for (int c = 0; c < 2 * N; c++) { s[c] = LD(r->less[c % 2]); }
    w4_steps(s, w, x, N);
    UNROLL for (int c = 0; c < 2 * N; c++) { _mm256_store_si256((void *)(part + 16 * c), s[c]); }
}
INLINE void w4_second(float *t, const int16_t *part, const ready4 *r, const vi *w, const uint8_t *x, const float *scale,
                      const float *sum, const int N) {
    vi s[4];
    UNROLL for (int c = 0; c < 2 * N; c++) { s[c] = LD(part + 16 * c); }
    w4_steps(s, w, x + 16, N);
    UNROLL for (int c = 0; c < 2 * N; c++) {
        const vf d = vcvt(_mm256_madd_epi16(s[c], _mm256_set1_epi16(1)));
        const vf ws = vld(r->scale + 8 * (c % 2)), by = vset(scale[c / 2]);
        if (sum) {
            const vf u = vfma(ws, d, vmul(vld(r->offset + 8 * (c % 2)), vset(sum[c / 2])));
            vst(t + 8 * c, vfma(by, u, vld(t + 8 * c)));
        } else {
            vst(t + 8 * c, vfma(vmul(ws, by), d, vld(t + 8 * c)));
        }
    }
}
/* A block for n tokens, two at a time: x their 32 bytes plus 128 each, t their float sums; sum: of their codes, with offsets. */
INLINE void w4_any(float *t, const ready4 *r, const uint8_t *x, const float *scale, const float *sum, int64_t n) {
    int16_t part[W4_TILE * 32] __attribute__((aligned(64)));
    vi w[8];
    int64_t i = 0;
    UNROLL for (int v = 0; v < 8; v++) { w[v] = LD(r->w[0][v / 2][v % 2]); }
    for (; i + 2 <= n; i += 2) {
        w4_first(part + 32 * i, r, w, x + 32 * i, 2);
    }
    if (i < n) {
        w4_first(part + 32 * i, r, w, x + 32 * i, 1);
    }
    UNROLL for (int v = 0; v < 8; v++) { w[v] = LD(r->w[1][v / 2][v % 2]); }
    for (i = 0; i + 2 <= n; i += 2) {
        w4_second(t + 16 * i, part + 32 * i, r, w, x + 32 * i, scale + i, sum ? sum + i : NULL, 2);
    }
    if (i < n) {
        w4_second(t + 16 * i, part + 32 * i, r, w, x + 32 * i, scale + i, sum ? sum + i : NULL, 1);
    }
}
static __attribute__((noinline)) void w4_block(float *t, const ready4 *r, const uint8_t *x, const float *scale, int64_t n) {
    w4_any(t, r, x, scale, NULL, n);
}
static __attribute__((noinline)) __attribute__((nonnull(5))) void w4o_block(float *t, const ready4 *r, const uint8_t *x,
                                                                            const float *scale, const float *sum, int64_t n) {
    w4_any(t, r, x, scale, sum, n);
}

/* Activations plus 128 with the blocks outermost, so that a tile of tokens reads one stretch: q [nb][m][32], scale and sum
 * [nb][m]. */
static void w4_repack(uint8_t *q, float *scale, float *sum, const fr_act8 *a, int64_t m0, int64_t m1) {
    const int64_t nb = a->kp / FR_BLOCK, m = m1 - m0;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t b = 0; b < nb; b++) {
            const vi v = vixor(LD(a->q + (m0 + i) * a->kp + b * FR_BLOCK), _mm256_set1_epi8(-128));
            _mm256_store_si256((void *)(q + (b * m + i) * 32), v);
            scale[b * m + i] = a->blocked ? a->scale[(m0 + i) * nb + b] : a->scale[m0 + i];
            sum[b * m + i] = (float)a->sum[(m0 + i) * nb + b];
        }
    }
}

#define DIRECT(S, N)                                                                                                             \
    do {                                                                                                                         \
        const int64_t l = (p1 - p0) / (S), ps = a->kp / FR_BLOCK * W4_BYTES(offset);                                             \
        for (int64_t p = p0; p < p0 + l; p++) {                                                                                  \
            w4_direct(t, w + p * ps, l * ps, a, m0, S, N, offset);                                                               \
            for (int c = 0; c < (S); c++) {                                                                                      \
                finish_tile(y, ldy, t + 16 * (N) * c, 1, 16, N, m0, 16 * (p + c * l), n, e);                                     \
            }                                                                                                                    \
        }                                                                                                                        \
        p0 += (S) * l;                                                                                                           \
    } while (0)
INLINE void w4_few(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                   int64_t n, const fr_epilogue *e, const int offset) {
    float t[64] __attribute__((aligned(64)));
    switch (m1 - m0) {
    case 1:
        DIRECT(4, 1);
        DIRECT(1, 1);
        break;
    case 2:
        DIRECT(2, 2);
        DIRECT(1, 2);
        break;
    case 3:
        DIRECT(1, 3);
        break;
    }
}
#undef DIRECT

INLINE void w4_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                       int64_t n, const fr_epilogue *e, void *scratch, const int offset) {
    const int64_t nb = a->kp / FR_BLOCK, m = m1 - m0, ps = nb * W4_BYTES(offset);
    float t[W4_TILE * 16] __attribute__((aligned(64)));
    if (m <= 3) {
        w4_few(y, ldy, a, m0, m1, w, p0, p1, n, e, offset);
        return;
    }
    uint8_t *q = scratch;
    float *scale = (void *)(q + m * a->kp), *sum = scale + m * nb;
    ready4 ready __attribute__((aligned(64)));
    w4_repack(q, scale, sum, a, m0, m1);
    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = even(m - i, W4_TILE);
        for (int64_t p = p0; p < p1; p++) {
            expect_tile(y, ldy, 1, 16, (int)rows, m0 + i, 16 * p, e);
            memset(t, 0, (size_t)rows * 16 * sizeof *t);
            for (int64_t b = 0; b < nb; b++) {
                w4_prepare(&ready, w + p * ps + b * W4_BYTES(offset), offset);
                for (int l = 0; l < 5; l++) { /* the lines of the next block */
                    _mm_prefetch((const char *)w + p * ps + (b + 1) * W4_BYTES(offset) + 64 * l, _MM_HINT_T0);
                }
                if (offset) {
                    w4o_block(t, &ready, q + (b * m + i) * 32, scale + b * m + i, sum + b * m + i, rows);
                } else {
                    w4_block(t, &ready, q + (b * m + i) * 32, scale + b * m + i, rows);
                }
            }
            finish_tile(y, ldy, t, 1, 16, (int)rows, m0 + i, 16 * p, n, e);
        }
    }
}

static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    w4_product(y, ldy, a, m0, m1, w, p0, p1, n, e, scratch, 0);
}
static void gemm_w4o(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    w4_product(y, ldy, a, m0, m1, w, p0, p1, n, e, scratch, 1);
}

/* A paired panel, paired tokens, what to take off of both, and scales; the repacked tokens of gemm_w4 need less. */
static size_t scratch_bytes(int64_t m, int64_t k) {
    const int64_t kp = (k + FR_BLOCK - 1) / FR_BLOCK * FR_BLOCK;
    const int64_t fours = (m + 3) / 4;
    return (size_t)(32 * kp + 8 * fours * kp + kp / FR_BLOCK * (128 + 32 * fours));
}

/* 16 channels from channel c on x M pixels from i on; w: the panel widened, [runs][2 quads][16][2]. */
INLINE void qconv_tile(const fr_qconv *q, const rounding *r, const int16_t *w, int64_t i, int64_t c, const int M) {
    const int32_t *params = q->params + c / 16 * FR_QPARAMS;
    const int16_t *x[6];
    vi s0[6], s1[6];
    UNROLL for (int m = 0; m < M; m++) {
        x[m] = (const int16_t *)q->codes + q->pixel[i + m];
        s0[m] = LD(params);
        s1[m] = LD(params + 8);
    }
    for (int64_t run = 0; run < q->runs; run++) {
        int64_t k = q->run[run], end = k + 4 * q->quads;
        do {
            const vi w0 = LD(w), w1 = LD(w + 16);
            UNROLL for (int m = 0; m < M; m++) {
                const vi code = bc4(x[m] + k);
                MAC(s0[m], w0, code);
                MAC(s1[m], w1, code);
            }
            w += 32;
            k += 2;
        } while (k < end);
    }
    put_sums(q, r, s0, s1, i, c, M);
}

static void qconv(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    const int64_t panel = q->runs * q->quads * 64;
    for (int64_t c = 0; c < q->n; c += 16) {
        widen_panel(q->scratch, q->w + c / 16 * panel, 4 * q->runs * q->quads);
        for (int64_t i = 0, n; i < q->pixels; i += n) {
            n = even(q->pixels - i, 6);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        qconv_tile(q, &r, q->scratch, i, c, N);                                                                                  \
        break;
            SIX(n, CASE)
#undef CASE
        }
    }
}

/* 16 channels of a depthwise convolution, in the order that unpacking gives: vector 0 holds channels 0-3 and 8-11, vector 1 the
 * others; a quad is two pairs of taps. */
typedef struct qdepth_job {
    const fr_qconv *q;
    rounding r;
    vi bias[2];
    vf m[2];
    const vi *w;           /* [quads][pair][vector], int16 */
    int64_t channel, flat; /* flat: channels of which a row of pixels side by side repeats whole vectors; 0: none */
} qdepth_job;

/* Values 4 v .. and 4 v + 8 .. of p, or those modulo flat. */
INLINE vi halves_of(const int32_t *p, int v, int64_t flat) {
    const int64_t a = flat ? 4 * v % flat : 4 * v, b = flat ? (4 * v + 8) % flat : 4 * v + 8;
    return _mm256_setr_m128i(_mm_loadu_si128((const void *)(p + a)), _mm_loadu_si128((const void *)(p + b)));
}
static void qdepth_open(qdepth_job *d, const fr_qconv *q, int64_t channel, int64_t flat) {
    const int32_t *params = q->params + channel / 16 * FR_QPARAMS;
    const int8_t *w = q->w + channel / 16 * q->quads * 64;
    const __m128i pairs = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    vi *to = q->scratch;
    *d = (qdepth_job){.q = q, .w = to, .channel = channel, .flat = flat};
    d->r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    for (int v = 0; v < 2; v++) {
        d->bias[v] = halves_of(params, v, flat);
        d->m[v] = vcastf(halves_of(params + 32, v, flat));
    }
    for (int64_t k = 0; k < q->quads; k++, w += 64, to += 4) {
        __m128i x[4];
        for (int i = 0; i < 4; i++) {
            x[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(w + 4 * (flat ? 4 * i % flat : 4 * i))), pairs);
        }
        _mm256_store_si256(to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi64(x[0], x[2])));
        _mm256_store_si256(to + 1, _mm256_cvtepi8_epi16(_mm_unpacklo_epi64(x[1], x[3])));
        _mm256_store_si256(to + 2, _mm256_cvtepi8_epi16(_mm_unpackhi_epi64(x[0], x[2])));
        _mm256_store_si256(to + 3, _mm256_cvtepi8_epi16(_mm_unpackhi_epi64(x[1], x[3])));
    }
}

INLINE void qdepth_put(const qdepth_job *d, vi s0, vi s1, uint8_t *to, int64_t n) {
    const vi c = to_halves(vmul(vcvt(s0), d->m[0]), vmul(vcvt(s1), d->m[1]), &d->r, d->q->small); /* channels in order */
    const __m128i v = _mm_packus_epi16(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    put16(to, limited(v, &d->r), n);
}
INLINE uint8_t *qdepth_to(const qdepth_job *d, int64_t i) { return (uint8_t *)d->q->y + i * d->q->ldy + d->channel; }

/* Adds four taps of a pixel, of which pairs are unpacked already. */
#define DEPTH_MAC(s0, s1, c, w)                                                                                                  \
    do {                                                                                                                         \
        MAC(s0, (w)[0], c[0]);                                                                                                   \
        MAC(s1, (w)[1], c[1]);                                                                                                   \
        MAC(s0, (w)[2], c[2]);                                                                                                   \
        MAC(s1, (w)[3], c[3]);                                                                                                   \
    } while (0)
INLINE void unpack_taps(vi c[4], const int16_t *x, const int32_t *at) {
    const vi a = LD(x + at[0]), b = LD(x + at[1]), e = LD(x + at[2]), f = LD(x + at[3]);
    c[0] = _mm256_unpacklo_epi16(a, b);
    c[1] = _mm256_unpackhi_epi16(a, b);
    c[2] = _mm256_unpacklo_epi16(e, f);
    c[3] = _mm256_unpackhi_epi16(e, f);
}

/* The same of M pixels where products fit int32 and all 16 channels are there: two at a time. */
INLINE void qdepth_put_small(const qdepth_job *d, const vi *s0, const vi *s1, uint8_t *to, const int M) {
    const rounding *r = &d->r;
    const int64_t ldy = d->q->ldy;
    UNROLL for (int m = 0; m < M; m += 2, to += 2 * ldy) {
        const int k = m + 1 < M ? m + 1 : m;
        const vi u = to_halves(vmul(vcvt(s0[m]), d->m[0]), vmul(vcvt(s1[m]), d->m[1]), r, 1);
        const vi v = to_halves(vmul(vcvt(s0[k]), d->m[0]), vmul(vcvt(s1[k]), d->m[1]), r, 1);
        const vi w = _mm256_permute4x64_epi64(_mm256_packus_epi16(u, v), 0xd8);
        _mm_storeu_si128((void *)to, limited(_mm256_castsi256_si128(w), r));
        if (k != m) {
            _mm_storeu_si128((void *)(to + ldy), limited(_mm256_extracti128_si256(w, 1), r));
        }
    }
}

/* M pixels side by side of a kernel of three columns, one or two columns apart: a column is unpacked once for all of them. */
INLINE void qdepth_columns(const qdepth_job *d, int64_t i, const int step, const int M, const int fast) {
    const fr_qconv *q = d->q;
    const int16_t *x = (const int16_t *)q->codes + q->pixel[i] + d->channel;
    const vi *w = d->w;
    vi s0[5], s1[5], c[4];
    PIN(x);
    PIN(w);
    UNROLL for (int m = 0; m < M; m++) {
        s0[m] = d->bias[0];
        s1[m] = d->bias[1];
    }
    UNROLL for (int j = 0; j < step * (M - 1) + 3; j++, x += q->columns) {
        unpack_taps(c, x, q->run);
        UNROLL for (int m = 0; m < M; m++) {
            const int k = j - step * m;
            if (k >= 0 && k < 3) {
                DEPTH_MAC(s0[m], s1[m], c, w + 4 * k);
            }
        }
        PIN(w);
    }
    if (fast) {
        qdepth_put_small(d, s0, s1, qdepth_to(d, i), M);
        return;
    }
    UNROLL for (int m = 0; m < M; m++) { qdepth_put(d, s0[m], s1[m], qdepth_to(d, i + m), q->n - d->channel); }
}

/* 16 channels of one pixel, or of as many pixels side by side as have them: the codes at x, n results. */
INLINE void qdepth_16(const qdepth_job *d, const int16_t *x, uint8_t *to, int64_t n) {
    const fr_qconv *q = d->q;
    vi s0 = d->bias[0], s1 = d->bias[1], c[4];
    for (int64_t k = 0; k < q->quads; k++) {
        unpack_taps(c, x, q->run + 4 * k);
        DEPTH_MAC(s0, s1, c, d->w + 4 * k);
    }
    qdepth_put(d, s0, s1, to, n);
}
static void qdepth_pixel(const qdepth_job *d, int64_t i) {
    const fr_qconv *q = d->q;
    qdepth_16(d, (const int16_t *)q->codes + q->pixel[i] + d->channel, qdepth_to(d, i), q->n - d->channel);
}

/* A row of pixels from i on whose codes and results lie side by side, 16 at a time. */
static void qdepth_flat(const qdepth_job *d, int64_t i) {
    const int16_t *x = (const int16_t *)d->q->codes + d->q->pixel[i];
    uint8_t *y = qdepth_to(d, i);
    for (int64_t n = d->q->row * d->flat; n > 0; n -= 16, x += 16, y += 16) {
        qdepth_16(d, x, y, n);
    }
}

/* A row of pixels from i on whose kernel has three columns; step, fast: see qdepth_columns. */
INLINE void qdepth_columns_row(const qdepth_job *d, int64_t i, const int step, const int fast) {
    enum { W = 5 };
    for (int64_t end = i + d->q->row, n; i < end; i += n) {
        n = even(end - i, step == 1 ? W : 2);
        switch (n) {
        case 1:
            qdepth_columns(d, i, step, 1, fast);
            break;
        case 2:
            qdepth_columns(d, i, step, 2, fast);
            break;
        case 3:
            qdepth_columns(d, i, 1, 3, fast);
            break;
        case 4:
            qdepth_columns(d, i, 1, 4, fast);
            break;
        default:
            qdepth_columns(d, i, 1, W, fast);
            break;
        }
    }
}
/* step: 0 for kernels of another form. */
static void qdepth_row(const qdepth_job *d, int64_t i, int step) {
    const bool fast = d->q->small && d->q->n - d->channel >= 16;
    if (step == 1 && fast) {
        qdepth_columns_row(d, i, 1, 1);
    } else if (step == 1) {
        qdepth_columns_row(d, i, 1, 0);
    } else if (step == 2 && fast) {
        qdepth_columns_row(d, i, 2, 1);
    } else if (step == 2) {
        qdepth_columns_row(d, i, 2, 0);
    } else {
        for (int64_t end = i + d->q->row; i < end; i++) {
            qdepth_pixel(d, i);
        }
    }
}

static void qdepth(const fr_qconv *q) {
    qdepth_job d;
    const int64_t apart = q->row > 1 ? q->pixel[1] - q->pixel[0] : 0; /* pixels of a row */
    const int step = q->columns > 0 && apart == q->columns ? 1 : q->columns > 0 && apart == 2 * q->columns ? 2 : 0;
    const int64_t flat = apart == q->n && q->ldy == q->n && (q->n == 4 || q->n == 8) ? q->n : 0;
    for (int64_t channel = 0; channel < q->n; channel += 16) {
        qdepth_open(&d, q, channel, flat);
        for (int64_t i = 0; i < q->pixels; i += q->row) {
            if (flat) {
                qdepth_flat(&d, i);
            } else {
                qdepth_row(&d, i, step);
            }
        }
    }
}
#undef DEPTH_MAC

/* Winograd: 16 channels of up to 4 pixels side by side. */
#define vimul _mm256_mullo_epi32
INLINE void wino_put(const fr_qconv *q, const rounding *r, vi s[2][4], int64_t p, int32_t n) {
    if (n == 4) {
        put_sums(q, r, s[0], s[1], 0, 16 * p, 4);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        vi a = s[0][i], b = s[1][i];
        put_sums(q, r, &a, &b, i, 16 * p, 1);
    }
}
/* The products of a panel u [c / 2][16][2] and N tiles (c values each) at one place, to m, step apart. */
INLINE void wino_mul(int32_t *m, int64_t step, const int16_t *v, int64_t c, const int16_t *u, const int N) {
    vi s0[6], s1[6];
    UNROLL for (int i = 0; i < N; i++) { s0[i] = s1[i] = viset(0); }
    for (int64_t k = 0; k < c; k += 2, u += 32) {
        const vi w0 = LD(u), w1 = LD(u + 16);
        UNROLL for (int i = 0; i < N; i++) {
            const vi x = bc4(v + i * c + k);
            ADD_DOTS(s0[i], w0, x);
            ADD_DOTS(s1[i], w1, x);
        }
    }
    UNROLL for (int i = 0; i < N; i++) {
        _mm256_storeu_si256((void *)(m + i * step), s0[i]);
        _mm256_storeu_si256((void *)(m + i * step + 8), s1[i]);
    }
}
/* All places of a panel: m [tiles][36][16].  Returns how many panels that are. */
static int64_t wino_panels(const fr_qwino *w, const int16_t *v, int32_t *m, int64_t p, int64_t left) {
    const int64_t panels = p + left, panel = 16 * w->c;
    for (int64_t q = 0; q < 36; q++) {
        const int16_t *u = w->u + (q * panels + p) * panel, *x = v + q * w->tiles * w->c;
        for (int64_t t = 0, n; t < w->tiles; t += n, x += n * w->c) {
            n = even(w->tiles - t, 6);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        wino_mul(m + (t * 36 + q) * 16, 36 * 16, x, w->c, u, N);                                                                 \
        break;
            SIX(n, CASE)
#undef CASE
        }
    }
    return 1;
}
#include "x86_winograd.h"

static const frugal_isa table = {
    .name = "avx2", .chunk = 96, .codes = FR_CODES_I16, .quad_bytes = 128, .wino_from = 16, .qwino = qwino, FR_FUNCTIONS};
const frugal_isa *const fr_isa_avx2 = &table;
#else
const frugal_isa *const fr_isa_avx2 = NULL;
#endif
