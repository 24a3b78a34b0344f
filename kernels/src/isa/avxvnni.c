/* avxvnni.c - the kernels for x86-64 with AVX-VNNI: vpdpbusd on 256-bit vectors; all that has no int8 dot in it is avx2.h's.
 *
 * vpdpbusd's left operand is unsigned: where both are signed, weights or activations enter plus 128 (bit 7 flipped) and 128 times
 * the sum of the others is taken off again, which is exact even where the int32 wraps.  Compile with -mavxvnni -mavx2 -mfma
 * -mf16c -ffp-contract=off; without those flags the table is absent.  FRUGAL_AVXVNNI_TEST: another form of the instruction, so
 * that the rest of this file runs on CPUs without it: 1 AVX-512 VNNI's (-mavx512vnni -mavx512vl), 2 plain AVX2.
 */
#include "../isa.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && (defined(__AVXVNNI__) || defined(FRUGAL_AVXVNNI_TEST))
#include "avx2.h"

/* s + the dots of four unsigned and four signed bytes a lane. */
#if !defined(FRUGAL_AVXVNNI_TEST)
#define dp _mm256_dpbusd_avx_epi32
#elif FRUGAL_AVXVNNI_TEST == 1
#define dp _mm256_dpbusd_epi32
#else
OP vi dp(vi s, vi u, vi x) {
    const vi even = _mm256_madd_epi16(viand(u, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
    return viadd(s, viadd(even, _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(x, 8))));
}
#endif

/* ---- int8 and int4 weights ---- */

/* Few tokens: the weights are the unsigned operand, made so on their way from memory.  Many: the activations are, then signed
 * weights are read as they lie (int8) or as prepare4 has unpacked them, and 128 times their sums, which depend on the panel
 * alone, are taken off. */
enum { TOKEN8, BLOCK8, BLOCK4, SCALED8, OFFSET4 }; /* gemm_w8 by token and by block, gemm_w4, gemm_w8b, gemm_w4o */
/* 512 bytes of code - zero, int32 less[16], float scale[16]; OFFSET4: 512 bytes of codes, which stay the unsigned operand, float
 * offset[16], float scale[16]. */
enum { READY_BLOCK4 = 640 };
enum { FEW = 5 };
#define IS4(kind) ((kind) == BLOCK4 || (kind) == OFFSET4)
#define BLOCK_BYTES(kind)                                                                                                        \
    ((kind) == BLOCK4 ? FR_W4_BLOCK : (kind) == OFFSET4 ? FR_W4O_BLOCK : (kind) == SCALED8 ? FR_W8B_BLOCK : 512)

/* The operands of one call of gemm_w8 or gemm_w4, and what it keeps in its scratch. */
typedef struct call {
    float *y;
    int64_t ldy;
    const fr_act8 *a;
    int64_t m0, m1;
    const uint8_t *w;
    const float *wscale; /* int8 */
    int64_t p0, p1, n;
    const fr_epilogue *e;
    uint8_t *ready;  /* a prepared panel (int4), or its less (int8) */
    uint8_t *tokens; /* the activations from token m0 on, plus 128 */
} call;

/* Unsigned weights of rows 8 h .. 8 h + 7 and k step s (4 k each) of a block. */
INLINE vi fetch(const uint8_t *w, int s, int h, const int kind) {
    if (!IS4(kind)) {
        return vixor(LD(w + 64 * s + 32 * h), _mm256_set1_epi8(-128));
    }
    const vi q = LD(w + 64 * (s % 4) + 32 * h);
    return viand(s < 4 ? q : _mm256_srli_epi16(q, 4), _mm256_set1_epi8(15));
}
OP vi zeros8(const uint8_t *block, int h) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(block + 288 + 8 * h))); }
OP vf halves8(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
OP vf scales8(const uint8_t *block, int h) { return halves8(block + 256 + 16 * h); }
OP vf offsets8(const uint8_t *block, int h) { return halves8(block + 288 + 16 * h); }
/* OFFSET4: what a dot adds to f. */
OP vf add_offset(vi dot, vf wscale, vf offset, int32_t sum, vf scale, vf f) {
    return vfma(scale, vfma(wscale, vcvt(dot), vmul(offset, vset((float)sum))), f);
}

/* One block's part of 8 rows and one token: f or, by token, d, the int32 sum so far.  first: ask for the
 * weights ahead. */
INLINE void few_step(vf *f, vi *d, const uint8_t *block, int h, const int8_t *x, int32_t sum, float scale, const int first,
                     const int kind) {
    vi s = kind == TOKEN8 ? *d : viset(0), u = viset(0);
    UNROLL for (int k = 0; k < 4; k++) {
        if (first) {
            _mm_prefetch((const char *)block + 1024 + 64 * k, _MM_HINT_T0);
            if (!IS4(kind)) {
                _mm_prefetch((const char *)block + 1280 + 64 * k, _MM_HINT_T0);
            }
        }
        s = dp(s, fetch(block, k, h, kind), bc4(x + 4 * k));
        u = dp(u, fetch(block, k + 4, h, kind), bc4(x + 4 * k + 16));
        KEEP(s);
        KEEP(u);
    }
    s = viadd(s, u);
    if (kind == TOKEN8) {
        *d = s;
    } else if (kind == BLOCK8) {
        *f = vfma(vset(scale), vcvt(visub(s, viset(128 * sum))), *f);
    } else if (kind == SCALED8) {
        *f = vfma(vmul(halves8(block + 512 + 16 * h), vset(scale)), vcvt(visub(s, viset(128 * sum))), *f);
    } else if (kind == OFFSET4) {
        *f = add_offset(s, scales8(block, h), offsets8(block, h), sum, vset(scale), *f);
    } else { /* zero and sum fit the low 16 bits */
        s = visub(s, _mm256_madd_epi16(zeros8(block, h), viset(sum)));
        *f = vfma(vmul(scales8(block, h), vset(scale)), vcvt(s), *f);
    }
}
/* S distant streams of panels, stride bytes apart from panel p on, x N tokens: results to t[S][N][16]. */
INLINE void few_tile(float *t, const call *g, int64_t p, int64_t l, const int S, const int N, const int kind) {
    const fr_act8 *a = g->a;
    const int64_t nb = a->kp / FR_BLOCK, panel = nb * BLOCK_BYTES(kind), per = a->blocked ? nb : 1, step = a->blocked ? 1 : 0;
    const uint8_t *w = g->w + p * panel;
    const int8_t *x = a->q + g->m0 * a->kp;
    const int32_t *sum = a->sum + g->m0 * nb;
    const float *scale = a->scale + g->m0 * per;
    vi d[10];
    vf f[10];
    UNROLL for (int c = 0; c < 2 * S * N; c++) {
        d[c] = viset(0);
        f[c] = vset(0.0f);
    }
    for (int64_t b = 0; b < nb; b++, w += BLOCK_BYTES(kind), x += FR_BLOCK) {
        UNROLL for (int c = 0; c < 2 * S * N; c++) {
            const int n = c / 2 % N, h = c % 2;
            const uint8_t *block = w + c / 2 / N * l * panel;
            few_step(f + c, d + c, block, h, x + n * a->kp, sum[n * nb + b], scale[n * per + b * step], n == 0 && h == 0, kind);
        }
    }
    UNROLL for (int c = 0; c < 2 * S * N; c++) {
        const int64_t n = c / 2 % N, j = 16 * (p + c / 2 / N * l) + c % 2 * 8;
        vf v = f[c];
        if (kind == TOKEN8) {
            int32_t total = 0;
            for (int64_t b = 0; b < nb; b++) {
                total += sum[n * nb + b];
            }
            v = vmul(vcvt(visub(d[c], viset(128 * total))), vmul(vld(g->wscale + j), vset(scale[n])));
        } else if (kind == BLOCK8) {
            v = vmul(v, vld(g->wscale + j));
        }
        vst(t + 8 * c, v);
    }
}
/* Panels from p0 on in S streams as far as they can be had; returns the first that is left. */
INLINE int64_t few_streams(const call *g, int64_t p0, const int S, const int N, const int kind) {
    const int64_t l = (g->p1 - p0) / S;
    float t[80] __attribute__((aligned(64)));
    for (int64_t p = p0; p < p0 + l; p++) {
        few_tile(t, g, p, l, S, N, kind);
        for (int c = 0; c < S; c++) {
            finish_tile(g->y, g->ldy, t + 16 * N * c, 1, 16, N, g->m0, 16 * (p + c * l), g->n, g->e);
        }
    }
    return p0 + S * l;
}
INLINE void run_few(const call *g, const int kind) {
    int64_t p = g->p0;
    switch (g->m1 - g->m0) {
    case 1:
        p = few_streams(g, p, 4, 1, kind);
        few_streams(g, p, 1, 1, kind);
        break;
    case 2:
        p = few_streams(g, p, 2, 2, kind);
        few_streams(g, p, 1, 2, kind);
        break;
    case 3:
        few_streams(g, p, 1, 3, kind);
        break;
    case 4:
        few_streams(g, p, 1, 4, kind);
        break;
    case 5:
        few_streams(g, p, 1, 5, kind);
        break;
    }
}

/* -128 times the sums of rows 8 h .. 8 h + 7 of a block of signed weights, added to less. */
INLINE vi less_block(vi less, const uint8_t *w, int h) {
    vi sum = viset(0);
    UNROLL for (int s = 0; s < 8; s++) { sum = dp(sum, _mm256_set1_epi8(-128), LD(w + 64 * s + 32 * h)); }
    return visub(less, sum);
}
/* A panel of int8 weights: less[nb][16] or, by token, less[16]. */
static void prepare8(int32_t *less, const uint8_t *w, int64_t nb, const int kind) {
    for (int h = 0; h < 2; h++) {
        vi all = viset(0);
        for (int64_t b = 0; b < nb; b++) {
            all = less_block(kind == TOKEN8 ? all : viset(0), w + BLOCK_BYTES(kind) * b, h);
            _mm256_store_si256((void *)(less + (kind == TOKEN8 ? 0 : 16 * b) + 8 * h), all);
        }
    }
}
/* A panel of int4 weights, unpacked. */
static void prepare4(uint8_t *d, const uint8_t *w, int64_t nb) {
    for (int64_t b = 0; b < nb; b++, w += FR_W4_BLOCK, d += READY_BLOCK4) {
        UNROLL for (int h = 0; h < 2; h++) {
            const vi zero = _mm256_mullo_epi32(zeros8(w, h), viset(0x01010101));
            UNROLL for (int s = 0; s < 8; s++) {
                _mm256_store_si256((void *)(d + 64 * s + 32 * h), _mm256_sub_epi8(fetch(w, s, h, BLOCK4), zero));
            }
            _mm256_store_si256((void *)(d + 512 + 32 * h), less_block(viset(0), d, h));
            vst((void *)(d + 576 + 32 * h), scales8(w, h));
        }
    }
}

static void prepare4o(uint8_t *d, const uint8_t *w, int64_t nb) {
    for (int64_t b = 0; b < nb; b++, w += FR_W4O_BLOCK, d += READY_BLOCK4) {
        UNROLL for (int h = 0; h < 2; h++) {
            UNROLL for (int s = 0; s < 8; s++) { _mm256_store_si256((void *)(d + 64 * s + 32 * h), fetch(w, s, h, OFFSET4)); }
            vst((void *)(d + 512 + 32 * h), offsets8(w, h));
            vst((void *)(d + 576 + 32 * h), scales8(w, h));
        }
    }
}

/* Panel p, prepared, x N tokens from token i on: by token 12 sums in registers, by block 6 with as many floats. */
INLINE void many_tile(float *t, const call *g, int64_t p, int64_t i, const int N, const int kind) {
    const fr_act8 *a = g->a;
    const int64_t kp = a->kp, nb = kp / FR_BLOCK, per = a->blocked ? nb : 1, step = a->blocked ? 1 : 0;
    const uint8_t *w = IS4(kind) ? g->ready : g->w + p * nb * BLOCK_BYTES(kind);
    const uint8_t *x = kind == OFFSET4 ? (const uint8_t *)a->q + i * kp : g->tokens + (i - g->m0) * kp;
    const uint8_t *less = IS4(kind) ? g->ready + 512 : g->ready;
    const float *scale = a->scale + i * per;
    vi s[12];
    vf f[12];
    UNROLL for (int c = 0; c < 2 * N; c++) {
        s[c] = LD(less + 32 * (c % 2));
        f[c] = vset(0.0f);
    }
    for (int64_t b = 0; b < nb; b++, x += FR_BLOCK, w += IS4(kind) ? READY_BLOCK4 : BLOCK_BYTES(kind)) {
        if (kind != TOKEN8) {
            UNROLL for (int c = 0; c < 2 * N; c++) { s[c] = kind == OFFSET4 ? viset(0) : LD(less + 32 * (c % 2)); }
        }
        UNROLL for (int k = 0; k < 8; k++) {
            const vi w0 = LD(w + 64 * k), w1 = LD(w + 64 * k + 32);
            UNROLL for (int n = 0; n < N; n++) {
                const vi q = bc4(x + n * kp + 4 * k);
                s[2 * n] = kind == OFFSET4 ? dp(s[2 * n], w0, q) : dp(s[2 * n], q, w0);
                KEEP(s[2 * n]);
                s[2 * n + 1] = kind == OFFSET4 ? dp(s[2 * n + 1], w1, q) : dp(s[2 * n + 1], q, w1);
                KEEP(s[2 * n + 1]);
            }
        }
        if (kind == TOKEN8) {
            continue;
        }
        UNROLL for (int c = 0; c < 2 * N; c++) {
            const vf token = vset(scale[c / 2 * per + b * step]);
            if (kind == OFFSET4) {
                const float *more = (const void *)(w + 512 + 32 * (c % 2));
                f[c] = add_offset(s[c], vld(more + 16), vld(more), a->sum[(i + c / 2) * nb + b], token, f[c]);
                KEEP(f[c]);
                continue;
            }
            if (kind == SCALED8) {
                f[c] = vfma(vmul(halves8(w + 512 + 16 * (c % 2)), token), vcvt(s[c]), f[c]);
                KEEP(f[c]);
                continue;
            }
            f[c] = vfma(kind == BLOCK8 ? token : vmul(vld((const void *)(w + 576 + 32 * (c % 2))), token), vcvt(s[c]), f[c]);
            KEEP(f[c]);
        }
        less += IS4(kind) ? READY_BLOCK4 : 64;
    }
    UNROLL for (int c = 0; c < 2 * N; c++) {
        vf v = f[c];
        if (kind == TOKEN8 || kind == BLOCK8) {
            const vf ws = vld(g->wscale + 16 * p + c % 2 * 8);
            v = kind == BLOCK8 ? vmul(v, ws) : vmul(vcvt(s[c]), vmul(ws, vset(scale[c / 2])));
        }
        vst(t + 8 * c, v);
    }
}
INLINE void run_many(const call *g, const int kind) {
    const int64_t nb = g->a->kp / FR_BLOCK, bytes = (g->m1 - g->m0) * g->a->kp;
    for (int64_t i = 0; i < bytes; i += 32) {
        _mm256_store_si256((void *)(g->tokens + i), vixor(LD(g->a->q + g->m0 * g->a->kp + i), _mm256_set1_epi8(-128)));
    }
    for (int64_t p = g->p0; p < g->p1; p++) {
        if (kind == BLOCK4) {
            prepare4(g->ready, g->w + p * nb * FR_W4_BLOCK, nb);
        } else if (kind == OFFSET4) {
            prepare4o(g->ready, g->w + p * nb * FR_W4O_BLOCK, nb);
        } else {
            prepare8((void *)g->ready, g->w + p * nb * BLOCK_BYTES(kind), nb, kind);
        }
        for (int64_t i = g->m0, rows; i < g->m1; i += rows) {
            float t[GROUP * 16] __attribute__((aligned(64)));
            rows = even(g->m1 - i, GROUP);
            expect_tile(g->y, g->ldy, 1, 16, (int)rows, i, 16 * p, g->e);
            for (int64_t r = 0, n; r < rows; r += n) {
                n = even(rows - r, kind == TOKEN8 ? 6 : 3);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= 3 || kind == TOKEN8) {                                                                                        \
            many_tile(t + 16 * r, g, p, i + r, N, kind);                                                                         \
        }                                                                                                                        \
        break;
                SIX(n, CASE)
#undef CASE
            }
            finish_tile(g->y, g->ldy, t, 1, 16, (int)rows, i, 16 * p, g->n, g->e);
        }
    }
}
INLINE void run_call(const call *g, const int kind) {
    if (g->m1 - g->m0 <= FEW) {
        run_few(g, kind);
    } else {
        run_many(g, kind);
    }
}

/* A prepared panel and shifted tokens. */
static size_t scratch_bytes(int64_t m, int64_t k) {
    return (size_t)((k + FR_BLOCK - 1) / FR_BLOCK * (READY_BLOCK4 + m * FR_BLOCK));
}
static call call_of(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, int64_t p0, int64_t p1, int64_t n,
                    const fr_epilogue *e, void *scratch) {
    uint8_t *ready = scratch;
    return (call){.y = y,
                  .ldy = ldy,
                  .a = a,
                  .m0 = m0,
                  .m1 = m1,
                  .p0 = p0,
                  .p1 = p1,
                  .n = n,
                  .e = e,
                  .ready = ready,
                  .tokens = ready + a->kp / FR_BLOCK * READY_BLOCK4};
}

static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, p0, p1, n, e, scratch);
    g.w = (const uint8_t *)w, g.wscale = wscale;
    if (a->blocked) {
        run_call(&g, BLOCK8);
    } else {
        run_call(&g, TOKEN8);
    }
}

static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, p0, p1, n, e, scratch);
    g.w = w;
    run_call(&g, BLOCK4);
}
static void gemm_w4o(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, p0, p1, n, e, scratch);
    g.w = w;
    run_call(&g, OFFSET4);
}
static void gemm_w8b(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, p0, p1, n, e, scratch);
    g.w = w;
    run_call(&g, SCALED8);
}

/* ---- integer convolution: codes as unsigned bytes ---- */

/* 16 channels from channel c on x M pixels from i on. */
INLINE void qconv_tile(const fr_qconv *q, const rounding *r, int64_t i, int64_t c, const int M) {
    const int32_t *params = q->params + c / 16 * FR_QPARAMS;
    const int8_t *w = q->w + c / 16 * q->runs * q->quads * 64;
    const uint8_t *x[6];
    vi s0[6], s1[6];
    UNROLL for (int m = 0; m < M; m++) {
        x[m] = (const uint8_t *)q->codes + q->pixel[i + m];
        s0[m] = LD(params);
        s1[m] = LD(params + 8);
    }
    for (int64_t run = 0; run < q->runs; run++) {
        int64_t k = q->run[run], end = k + 4 * q->quads;
        do {
            const vi w0 = LD(w), w1 = LD(w + 32);
            UNROLL for (int m = 0; m < M; m++) {
                const vi code = bc4(x[m] + k);
                s0[m] = dp(s0[m], code, w0);
                KEEP(s0[m]);
                s1[m] = dp(s1[m], code, w1);
                KEEP(s1[m]);
            }
            w += 64;
            k += 4;
        } while (k < end);
    }
    put_sums(q, r, s0, s1, i, c, M);
}

static void qconv(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    for (int64_t c = 0; c < q->n; c += 16) {
        for (int64_t i = 0, n; i < q->pixels; i += n) {
            n = even(q->pixels - i, 6);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        qconv_tile(q, &r, i, c, N);                                                                                              \
        break;
            SIX(n, CASE)
#undef CASE
        }
    }
}

/* 32 channels of a depthwise convolution, as unpacking leaves them: vector v holds channels 16 l + 4 v .. 4 v + 3 in its lane l,
 * four taps each. */
typedef struct qdepth_job {
    const fr_qconv *q;
    rounding r;
    vi bias[4];
    vf m[4];
    vi *w;                 /* [quads][4] */
    int64_t channel, flat; /* flat: channels of which a row of pixels side by side repeats whole vectors; 0: none */
} qdepth_job;

INLINE void interleave(vi d[4], const uint8_t *x, const int32_t *at) {
    const vi a = LD(x + at[0]), b = LD(x + at[1]), c = LD(x + at[2]), e = LD(x + at[3]);
    const vi ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
    const vi ce0 = _mm256_unpacklo_epi8(c, e), ce1 = _mm256_unpackhi_epi8(c, e);
    d[0] = _mm256_unpacklo_epi16(ab0, ce0);
    d[1] = _mm256_unpackhi_epi16(ab0, ce0);
    d[2] = _mm256_unpacklo_epi16(ab1, ce1);
    d[3] = _mm256_unpackhi_epi16(ab1, ce1);
}
/* 16 bytes for each four of 32 channels, as interleave orders them: channels c .. c + 3 (c = 16 l + 4 v of lane l, or that modulo
 * flat) are at 16 (c % 16 / 4) of panel c / 16, bytes apart; channels from n on are zeros. */
INLINE vi lanes_of(const void *at, int64_t bytes, int v, int64_t flat, int64_t n) {
    __m128i l[2];
    UNROLL for (int i = 0; i < 2; i++) {
        const int64_t c = flat ? (16 * i + 4 * v) % flat : 16 * i + 4 * v;
        l[i] = c / 16 * 16 < n ? _mm_loadu_si128((const void *)((const uint8_t *)at + c / 16 * bytes + c % 16 / 4 * 16))
                               : _mm_setzero_si128();
    }
    return _mm256_setr_m128i(l[0], l[1]);
}
static void qdepth_open(qdepth_job *d, const fr_qconv *q, int64_t channel, int64_t flat) {
    const int64_t p = channel / 16, left = q->n - channel;
    const int32_t *params = q->params + p * FR_QPARAMS;
    *d = (qdepth_job){.q = q, .w = q->scratch, .channel = channel, .flat = flat};
    d->r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    for (int v = 0; v < 4; v++) {
        d->bias[v] = lanes_of(params, 4 * FR_QPARAMS, v, flat, left);
        d->m[v] = vcastf(lanes_of(params + 32, 4 * FR_QPARAMS, v, flat, left));
        for (int64_t k = 0; k < q->quads; k++) {
            d->w[4 * k + v] = lanes_of(q->w + (p * q->quads + k) * 64, 64 * q->quads, v, flat, left);
        }
    }
}

/* Stores the first n of 32 channels. */
INLINE void qdepth_put(const qdepth_job *d, const vi s[4], uint8_t *to, int64_t n) {
    vf v[4];
    UNROLL for (int k = 0; k < 4; k++) { v[k] = vmul(vcvt(s[k]), d->m[k]); }
    const vi y = _mm256_packus_epi16(to_halves(v[0], v[1], &d->r, d->q->small), to_halves(v[2], v[3], &d->r, d->q->small));
    const __m128i low = limited(_mm256_castsi256_si128(y), &d->r), high = limited(_mm256_extracti128_si256(y, 1), &d->r);
    put16(to, low, n);
    if (n > 16) {
        put16(to + 16, high, n - 16);
    }
}
INLINE uint8_t *qdepth_to(const qdepth_job *d, int64_t i) { return (uint8_t *)d->q->y + i * d->q->ldy + d->channel; }

/* M pixels side by side of a kernel of three columns, one or two columns apart: a column is unpacked once for all of them. */
INLINE void qdepth_columns(const qdepth_job *d, int64_t i, const int step, const int M) {
    const fr_qconv *q = d->q;
    const uint8_t *x = (const uint8_t *)q->codes + q->pixel[i] + d->channel;
    vi s[8], c[4];
    UNROLL for (int v = 0; v < 4 * M; v++) { s[v] = d->bias[v % 4]; }
    UNROLL for (int j = 0; j < step * (M - 1) + 3; j++, x += q->columns) {
        interleave(c, x, q->run);
        UNROLL for (int v = 0; v < 4 * M; v++) {
            const int k = j - step * (v / 4);
            if (k >= 0 && k < 3) {
                s[v] = dp(s[v], c[v % 4], d->w[4 * k + v % 4]);
                KEEP(s[v]);
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) { qdepth_put(d, s + 4 * m, qdepth_to(d, i + m), q->n - d->channel); }
}

/* 32 channels of one pixel, or of as many pixels side by side as have them: the codes at x, n results. */
INLINE void qdepth_32(const qdepth_job *d, const uint8_t *x, uint8_t *to, int64_t n) {
    vi s[4] = {d->bias[0], d->bias[1], d->bias[2], d->bias[3]}, c[4];
    for (int64_t k = 0; k < d->q->quads; k++) {
        interleave(c, x, d->q->run + 4 * k);
        UNROLL for (int v = 0; v < 4; v++) { s[v] = dp(s[v], c[v], d->w[4 * k + v]); }
    }
    qdepth_put(d, s, to, n);
}
static void qdepth_pixel(const qdepth_job *d, int64_t i) {
    qdepth_32(d, (const uint8_t *)d->q->codes + d->q->pixel[i] + d->channel, qdepth_to(d, i), d->q->n - d->channel);
}

/* A row of pixels from i on whose codes and results lie side by side, 32 at a time. */
static void qdepth_flat(const qdepth_job *d, int64_t i) {
    const uint8_t *x = (const uint8_t *)d->q->codes + d->q->pixel[i];
    uint8_t *y = qdepth_to(d, i);
    for (int64_t n = d->q->row * d->flat; n > 0; n -= 32, x += 32, y += 32) {
        qdepth_32(d, x, y, n);
    }
}

/* A row of pixels from i on; step: see qdepth_columns, 0 for kernels of another form. */
static void qdepth_row(const qdepth_job *d, int64_t i, int step) {
    const int64_t end = i + d->q->row;
    for (; step == 1 && i + 2 <= end; i += 2) {
        qdepth_columns(d, i, 1, 2);
    }
    for (; step == 2 && i + 2 <= end; i += 2) {
        qdepth_columns(d, i, 2, 2);
    }
    for (; i < end; i++) {
        qdepth_pixel(d, i);
    }
}

static void qdepth(const fr_qconv *q) {
    qdepth_job d;
    const int64_t apart = q->row > 1 ? q->pixel[1] - q->pixel[0] : 0; /* pixels of a row */
    const int step = q->columns > 0 && apart == q->columns ? 1 : q->columns > 0 && apart == 2 * q->columns ? 2 : 0;
    const int64_t flat = apart == q->n && q->ldy == q->n && (q->n == 4 || q->n == 8 || q->n == 16) ? q->n : 0;
    for (int64_t channel = 0; channel < q->n; channel += 32) {
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

static const frugal_isa table = {.name = "avxvnni", .chunk = 96, .codes = FR_CODES_U8, FR_FUNCTIONS};
const frugal_isa *const fr_isa_avxvnni = &table;
#else
const frugal_isa *const fr_isa_avxvnni = NULL;
#endif
