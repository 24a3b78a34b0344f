/* isa.h - one table of functions per instruction set; the executor calls nothing else that depends on the CPU.
 *
 * isa/scalar.c is the definition: every other file gives the same bytes for every input (NaN payloads apart).  The rules that
 * make that possible:
 *   - integer dots are exact; int32 cannot overflow (k <= FR_MAX_K);
 *   - a float dot is one fmaf chain over ascending k, starting from 0: vectorise over outputs, never over k;
 *   - a float sum over a row has 16 lanes: lane j adds the elements i with i mod 16 = j in ascending order, starting from 0; then
 *     lanes j += j + 8 (j < 8), j += j + 4 (j < 4), j += j + 2 (j < 2), lane 0 += lane 1;
 *   - a maximum of floats is exact in any order; where a NaN may occur the rule is written beside the function;
 *   - exp, erf, tanh are the polynomials of fmath.h with fmaf where it says fmaf; no libm but fmaf, sqrtf, rintf, floorf;
 *   - the files are compiled with -ffp-contract=off and without -ffast-math.
 * A pointer to a whole table is NULL in a build whose compiler flags lack the instructions (fr_isa_avx2 ...).
 */
#ifndef FRUGAL_ISA_H
#define FRUGAL_ISA_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frugal.h"

enum { FR_PANEL = 16, FR_BLOCK = 32, FR_W4_BLOCK = 304, FR_W4O_BLOCK = 320, FR_W8B_BLOCK = 544, FR_MAX_K = 131072 };

/* Quantized activations: layouts A8_TOKEN and A8_BLOCK of frugal_plan.h.  kp = k rounded up to 32, nb = kp / 32. */
typedef struct fr_act8 {
    const int8_t *q;    /* [m][kp], in [-127, 127] */
    const float *scale; /* [m] or, blocked, [m][nb] */
    const int32_t *sum; /* [m][nb] */
    int64_t m, kp;
    int blocked;
} fr_act8;

/* What happens to a result before it is stored: v = v + bias[j]; v = act(v); if affine v = v * scale + shift, rounded twice;
 * v = v + residual[i * ld + j]. */
typedef struct fr_epilogue {
    const float *bias;     /* [np] or NULL */
    const float *residual; /* or NULL; never overlaps y unless it is y itself with the same ld */
    int64_t ld;
    int act; /* a frugal_unary of float32; FRUGAL_U_COPY for none */
    int affine;
    float p, q; /* of act */
    float scale, shift;
} fr_epilogue;

/* Taps of a convolution that lie side by side: n inputs from a on (floats from where the position starts) meet the rows k, k + 1,
 * .. of the weights; of a depthwise one: the channels from a on meet the weights from k on. */
typedef struct fr_span {
    int64_t a, k, n;
} fr_span;

/* How an instruction set wants the codes of an integer convolution: as unsigned bytes, as these in int16, or as signed bytes
 * (the unsigned code with bit 7 flipped). */
enum { FR_CODES_U8 = 0, FR_CODES_I16 = 1, FR_CODES_I8 = 2 };
enum { FR_ROWS_32 = 0, FR_ROWS_HALF = 1 };
enum { FR_QPARAMS = 64 }; /* int32 values of a panel's parameters */

/* A strip of an integer convolution (ops_qconv.c): output pixels by output channels.
 *     acc = bias + sum over runs and k of code * w - wzero * window      modulo 2^32
 *     int32: acc;  float32: v = (float)acc * m;
 *     8 bits: limit(v, low - zero, high - zero) rounded half to even, plus zero; bit 7 flipped for int8
 * with limit(v, a, b) = v > a ? (v < b ? v : b) : a (a NaN gives a).  bias, m, wzero: row 0 (row 1 where codes are signed), 2, 3
 * of the panel's params [4][16]. */
typedef struct fr_qconv {
    const void *codes;           /* in the form of the instruction set; readable for 64 codes beyond what is used */
    const int32_t *pixel;        /* [pixels]: the first code of an output pixel */
    const int32_t *run;          /* [runs]: the first code of a run, from there */
    int64_t pixels, runs, quads; /* quads: 4 codes each, of every run */
    const int8_t *w;             /* [panels][runs][quads][16][4] */
    const int32_t *params;       /* [panels][4][16] */
    const int32_t *window;       /* [pixels]: sum of the codes under the kernel; NULL where all wzero are 0 */
    void *y;
    int64_t n, ldy;          /* output channels; elements from one pixel of y to the next */
    int dtype;               /* of y: uint8, int8, int32 or float32 (TensorProto.DataType) */
    int32_t zero, low, high; /* of y's unsigned codes */
    int small;               /* every |m| is at most 1/2: no product leaves int32 */
    void *scratch;           /* depthwise: FR_QSCRATCH bytes a quad; else quad_bytes of the instruction set a quad of every run */
    int64_t row; /* output pixels of a row; columns > 0: quad k holds the 4 rows of column k of 3, columns codes apart */
    int64_t columns;
} fr_qconv;
enum { FR_QSCRATCH = 512 };

/* Up to FR_WINO_TILES tiles of 4 x 4 output pixels of a 3 x 3 convolution that moves by one, by Winograd's F(4 x 4, 3 x 3) in
 * integers (ops_winograd.c): the same sums as a qconv of the same weights. */
enum { FR_WINO_TILES = 12 };
typedef struct fr_wino_tile {
    const uint8_t *row[6]; /* the six rows of x under the tile, at its first column; those of border where they are outside */
    int32_t from, to;      /* of the six columns, those inside the image; from == to where there is none */
    uint8_t *y;            /* its first output pixel */
    int32_t rows, columns; /* of y that the tile has */
} fr_wino_tile;
typedef struct fr_qwino {
    const fr_wino_tile *tile;
    int64_t tiles, c;             /* c: a multiple of 16 */
    const uint8_t *const *border; /* six rows of 6 c codes, as x has them, of the zero point */
    int is_signed;                /* the codes of x are int8 */
    const int16_t *u;             /* [36][panels][c / 2][16][2] */
    fr_qconv out;                 /* params, n, ldy, dtype, zero, low, high, small */
    int64_t y_row;                /* bytes from one row of y to the next */
    void *scratch;                /* fr_wino_scratch(c) bytes */
} fr_qwino;
static inline int64_t fr_wino_scratch(int64_t c) { return 36 * (FR_WINO_TILES * 2 * c + 2 * FR_WINO_TILES * 64); }

/* Codes as bytes: flip is 0x80 for int8, 0 for uint8; the zero points are those of the unsigned codes. */
typedef struct fr_qadd {
    int32_t za, zb, zero;
    float ma, mb;
    int32_t low, high;
    uint8_t flip_a, flip_b, flip_y;
} fr_qadd;

/* Loops over dense rows.  kind, dtype: numbers of frugal_plan.h and TensorProto.DataType.  Steps sa, sb: 1, or 0 where one
 * element meets all.  y may be an operand of the same size.  Those that return a bool give false where they have no loop for the
 * types (then nothing is written, and the caller has one). */
typedef struct fr_rows {
    bool (*binary)(int kind, int dtype, void *y, const void *a, const void *b, int sa, int sb, int64_t n);
    /* Of integers, NOT, ISNAN, ISINF (below, above: whether -inf, +inf counts). */
    bool (*unary)(int kind, int dtype, void *y, const void *x, int64_t n, int below, int above);
    bool (*cast)(int to, int from, void *y, const void *x, int64_t n);
    void (*where)(int size, void *y, const uint8_t *condition, const void *a, const void *b, int sa, int sb, int64_t n);
    /* QUANTIZE and DEQUANTIZE of 8 and 16 bits; zero may be NULL; many: a scale and a zero point for every element. */
    bool (*codes)(int dtype, void *y, const float *x, int64_t n, const float *scale, const void *zero, int many);
    bool (*uncode)(int dtype, float *y, const void *x, int64_t n, const float *scale, const void *zero, int many);
    void (*shift)(float *y, const float *x, int64_t n, float a, float b); /* y = (x - a) - b */
    /* REDUCE before the mean's division and the root: 16 lanes as above (start -inf, inf, 1 or 0); a NaN wins in MAX and MIN.
     * Columns: y[j] of the elements x[e * step + j], e < count. */
    float (*reduce)(int kind, const float *x, int64_t n);
    void (*reduce_columns)(int kind, float *y, const float *x, int64_t step, int64_t count, int64_t n);
    /* min(0, x), max(0, x); NaNs are passed over. */
    void (*extremes)(const float *x, int64_t n, float *low, float *high);
    /* Softmax (log: its logarithm) of each column j < n of x[e * step + j], e < count; the bits of softmax over a row. */
    void (*softmax_columns)(float *y, const float *x, int64_t step, int64_t count, int64_t n, int log);
} fr_rows;

struct frugal_isa {
    const char *name;
    /* Bytes of scratch (64-aligned) that the gemm functions may use, for tokens m1 - m0 <= m and depth k. */
    size_t (*scratch_bytes)(int64_t m, int64_t k);
    /* Tokens a call of gemm_w8, gemm_w4, gemm_f32 likes best (the executor cuts m into chunks of this). */
    int64_t chunk;

    /* y[i*ldy + j] for i < m, j < n:  v = sum over k of a[i*lda + kk] * b[(j/16)*bp + kk*bk + j%16], one fmaf chain, ascending;
     * v = alpha * v when alpha != 1; then the epilogue.  b is readable for whole panels of 16 columns; y is written for j < n
     * only. Packed weights: bk = 16, bp = 16 * k; a row-major [k][ldb] matrix: bk = ldb, bp = 16. */
    void (*gemm_f32)(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e);
    /* The same with b in F16_P16, or (bf16) BF16_P16, widened when it is read: bk = 16, bp = 16 k, no alpha. */
    void (*gemm_half)(float *y, int64_t ldy, const float *a, int64_t lda, const uint16_t *b, int bf16, int64_t m, int64_t n,
                      int64_t k, const fr_epilogue *e);
    /* Tokens m0 <= i < m1, panels p0 <= p < p1 of W8_P16; row r = 16 p + ..., written where r < n:  y[i*ldy + r] =
     * token:   v = (float)(sum over k of w * q) * (wscale[r] * scale[i])
     * blocked: v = 0; for b ascending: v = fmaf(scale[i][b], (float)(dot of block b), v);  v = v * wscale[r]
     * then the epilogue (e->residual and y are indexed from token 0). */
    void (*gemm_w8)(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch);
    /* W4_P16:  v = 0; for b ascending: d = sum of code * q - zero * sum[i][b];  v = fmaf(wscale * s, (float)d, v), where s is
     * scale[i][b] (blocked) or scale[i]; wscale the fp16 value.  Scales are finite halves, subnormals allowed. */
    void (*gemm_w4)(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch);
    /* W4O_P16:  v = 0; for b ascending: u = fmaf(wscale, (float)(sum of code * q), offset * (float)sum[i][b]);
     * v = fmaf(s, u, v).  Scales and offsets are finite halves. */
    void (*gemm_w4o)(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch);
    /* W8B_P16:  v = 0; for b ascending: v = fmaf(wscale * s, (float)(dot of block b), v).  Scales are finite halves. */
    void (*gemm_w8b)(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch);

    /* y[i*ldy + j] for i < m, j < n:  v = 0; for every span in order, kk ascending below its n:
     * v = fmaf(x[i*ldx + span.a + kk], b[(j/16)*bp + (span.k + kk)*16 + j%16], v);  then the epilogue (e->ld is that of y). */
    void (*conv_f32)(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans, const float *b,
                     int64_t bp, int64_t m, int64_t n, const fr_epilogue *e);
    /* y[i*ldy + j] for i < m, j < n:  v = 0; for every span in order: v = fmaf(x[i*ldx + span.a + j], w[span.k + j], v);  then
     * the epilogue. */
    void (*conv_depthwise)(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans,
                           const float *w, int64_t m, int64_t n, const fr_epilogue *e);
    /* A tile of 6 x 6 pixels of c channels: d, where row i of it begins at rows[i], or is six pixels of zeros of border[i] in the
     * columns that are not from .. to - 1.  v[(6 i + j) * step + channel] = (B^T d B)[i][j]: along the columns, then along the
     * rows, each line of six values d to: g = d4 - d2, h = d3 - d1, e = fmaf(-4, d2, d4), f = fmaf(-4, d1, d3);
     * fmaf(4, d0 - d2, g), e + f, e - f, fmaf(2, h, g), fmaf(-2, h, g), fmaf(-4, h, d5 - d3). */
    void (*wino_in)(float *v, int64_t step, const float *const *rows, const float *const *border, int from, int to, int64_t c);
    /* A tile of 4 x 4 pixels of n channels, of which rows x columns exist: A^T m A of the products m[(6 i + j) * step + channel],
     * along the columns, then along the rows, each line of six values m to four: a = m1 + m2, b = m1 - m2, c = m3 + m4,
     * d = m3 - m4;  m0 + (a + c), fmaf(2, d, b), fmaf(4, c, a), fmaf(8, d, b) + m5.  Then the epilogue.  Pixels of y and of the
     * residual are ldy, their rows y_row apart. */
    void (*wino_out)(float *y, int64_t ldy, int64_t y_row, const float *m, int64_t step, int rows, int columns, int64_t n,
                     const fr_epilogue *e);

    /* One row of k floats to q[kp], sum[nb], scale[1] or (blocked) scale[nb].  For each token or block:
     * a = max |x| (compared as the int32 of the bits with the sign cleared, so that NaN > inf > numbers);
     * a NaN or inf: q = 0, scale = NaN (0x7fc00000);  a < 2^-100: q = 0, scale = 0;
     * else scale = a * (1/127 rounded to float), i = 127 / a, q = rintf(x * i) limited to [-127, 127]. */
    void (*quantize)(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, int blocked);
    /* The same with a given scale s > 0 (static): q = rintf(x * (1/s)) limited to [-127, 127], a NaN gives 0.  Writes scale[0] =
     * s. */
    void (*quantize_static)(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, float s);

    /* v = x + residual (residual may be NULL); mean = sum(v) / n; u = v - mean; var = sum(u * u) / n (product rounded, then
     * added); y = u * (1 / sqrtf(var + eps)) * gamma + beta, in that order, each operation rounded; beta may be NULL (then no
     * addition). y may be x or residual. */
    void (*layer_norm)(float *y, const float *x, const float *residual, const float *gamma, const float *beta, int64_t n,
                       float eps);
    /* v = x + residual; y = v * (1 / sqrtf(sum(v * v) / n + eps)) * gamma. */
    void (*rms_norm)(float *y, const float *x, const float *residual, const float *gamma, int64_t n, float eps);
    /* x[i] = fr_exp(x[i] - max), returns their sum (16 lanes).  -inf gives 0; a row of only -inf becomes zeros, sum 0; a NaN
     * makes all NaN. Appending -inf elements changes no bit of the others, nor of the sum. */
    float (*softmax)(float *x, int64_t n);
    /* y = f(x), f one of enum frugal_unary on float32 with parameters p, q; y may be x. */
    void (*unary)(int kind, float *y, const float *x, int64_t n, float p, float q);
    /* y = x * s, y may be x. */
    void (*scale)(float *y, const float *x, int64_t n, float s);
    fr_rows rows;

    int codes;          /* the form of the codes that qconv and qdepth read */
    int64_t quad_bytes; /* of qconv's scratch, see fr_qconv */
    void (*qconv)(const fr_qconv *q);
    /* Depthwise: channel c of pixel i reads code pixel[i] + run[4 k + j] + c for tap j of quad k (runs is 1); no window, no
     * int32 and float32. */
    void (*qdepth)(const fr_qconv *q);
    /* May be NULL: then 3 x 3 convolutions run as qconv, which gives the same, as they do with fewer input channels than
     * wino_from. */
    int64_t wino_from;
    void (*qwino)(const fr_qwino *w);
    /* y[i] = limit(t, low - zero, high - zero) rounded half to even, plus zero;  t = (a[i] - za) * ma + (b[i] - zb) * mb, each
     * operation rounded. */
    void (*qadd)(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p);

    /* softmax, which also writes the maximum: -inf for a row of only -inf or of nothing, NaN where a NaN occurs. */
    float (*softmax_top)(float *x, int64_t n, float *top);
    /* n rows of k elements, ld bytes from one to the next, to panels [n / 16 rounded up][k][16] (missing rows are 0).  form:
     * FR_ROWS_32 any 32 bits, FR_ROWS_HALF fp16 to float32. */
    void (*pack_rows)(float *dst, const void *src, int64_t ld, int form, int64_t n, int64_t k);
    /* y[i] = x[i], fp16 to float32. */
    void (*widen)(float *y, const uint16_t *x, int64_t n);
    /* y[i*ldy + j] = (float)(sum over c < d of q[i*ldq + c] * k[j*ldk + c]) * (qs[i] * ks[j]), i < m, j < n.  q in [-127, 127] is
     * readable and 0 up to the next multiple of 64.  A hint: the `ahead` rows from next on, ldk apart, are wanted soon. */
    void (*qk8)(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead);
    /* u = w[i] == 0 ? 0 : w[i] * s[i];  a = max |u| (as in quantize);  a NaN or inf: p = 0, returns NaN;  a < 2^-100: p = 0,
     * returns 0;  else p = rintf(u * (32512 / a)), returns a * (1/32512 rounded to float).  p is written, with zeros, up to the
     * next multiple of 16. */
    float (*weights8)(int16_t *p, const float *w, const float *s, int64_t n);
    /* y[i*ldy + c] = (float)(sum over j < n of p[i*ldp + j] * v[j*ldv + c]) * ps[i], i < m, c < e.  n <= 512 and |p| <= 32512, so
     * that int32 holds every sum; p is readable and 0 up to the next multiple of 16.  next, ahead: as in qk8. */
    void (*pv8)(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead);
};

extern const frugal_isa *const fr_isa_scalar; /* never NULL */
extern const frugal_isa *const fr_isa_avx2;
extern const frugal_isa *const fr_isa_avxvnni;
extern const frugal_isa *const fr_isa_avx512vnni;
extern const frugal_isa *const fr_isa_neon;
extern const frugal_isa *const fr_isa_dotprod;
extern const frugal_isa *const fr_isa_i8mm;
extern const frugal_isa *const fr_isa_rvv;

#if defined(__x86_64__) || defined(__i386__)
/* What an x86 CPU says of itself: cpuid leaf 1 ecx, leaf 7 ebx and ecx, leaf 7.1 eax; and XCR0, 0 without xgetbv. */
enum { FR_X86_1C, FR_X86_7B, FR_X86_7C, FR_X86_71A, FR_X86_WORDS };
typedef struct fr_x86 {
    uint32_t word[FR_X86_WORDS], saved;
} fr_x86;
fr_x86 fr_x86_here(void);
/* The first thing that cpu lacks for these kernels, or "". */
const char *fr_avx2_lacks(const fr_x86 *cpu);
const char *fr_avxvnni_lacks(const fr_x86 *cpu);
const char *fr_avx512vnni_lacks(const fr_x86 *cpu);
#endif

/* The pool: runs task(ctx, i, thread) for i in [0, n), thread in [0, threads), any order; returns when all are done. */
typedef void (*fr_task)(void *ctx, int64_t i, int32_t thread);
void fr_pool_run(frugal_pool *pool, int64_t n, fr_task task, void *ctx); /* pool NULL: in this thread */
/* Around a run, so that workers stay awake between its jobs.  operations: of the run, and of the next job (0: not known); from
 * some millions on sleeping workers are woken at once, else when the caller's own part has shown that it is worth it. */
void fr_pool_begin(frugal_pool *pool, int64_t operations);
void fr_pool_expect(frugal_pool *pool, int64_t operations);
void fr_pool_end(frugal_pool *pool);
#endif
