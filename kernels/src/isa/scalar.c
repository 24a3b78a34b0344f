/* scalar.c - the definition of every kernel, in plain C: the other files of this folder give the same bytes.
 *
 * Compile with -ffp-contract=off and -fno-tree-vectorize (so that it is also an honest baseline).
 */
#include "../isa.h"

#include "../fmath.h"
#include "rows.h"
#include "table.h"

static size_t scratch_bytes(int64_t m, int64_t k) {
    (void)m;
    (void)k;
    return 0;
}

/* The epilogue for one result v of row i, column j (isa.h, fr_epilogue). */
static float finish(float v, const fr_epilogue *e, int64_t i, int64_t j) {
    if (e->bias) {
        v = v + e->bias[j];
    }
    v = fr_unary(e->act, v, e->p, e->q);
    if (e->affine) {
        v = v * e->scale;
        v = v + e->shift;
    }
    return e->residual ? v + e->residual[i * e->ld + j] : v;
}

static void gemm_f32(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            const float *x = a + i * lda, *w = b + j / FR_PANEL * bp + j % FR_PANEL;
            float v = 0.0f;
            for (int64_t kk = 0; kk < k; kk++) {
                v = FR_FMA(x[kk], w[kk * bk], v);
            }
            y[i * ldy + j] = finish(alpha != 1.0f ? alpha * v : v, e, i, j);
        }
    }
}

static void gemm_half(float *y, int64_t ldy, const float *a, int64_t lda, const uint16_t *b, int bf16, int64_t m, int64_t n,
                      int64_t k, const fr_epilogue *e) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            const uint16_t *w = b + j / FR_PANEL * FR_PANEL * k + j % FR_PANEL;
            float v = 0.0f;
            for (int64_t kk = 0; kk < k; kk++) {
                const uint16_t h = w[kk * FR_PANEL];
                v = FR_FMA(a[i * lda + kk], bf16 ? from_bfloat16(h) : fr_half_to_float(h), v);
            }
            y[i * ldy + j] = finish(v, e, i, j);
        }
    }
}

static void conv_f32(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans, const float *b,
                     int64_t bp, int64_t m, int64_t n, const fr_epilogue *e) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            const float *w = b + j / FR_PANEL * bp + j % FR_PANEL;
            float v = 0.0f;
            for (const fr_span *s = spans; s < spans + n_spans; s++) {
                for (int64_t kk = 0; kk < s->n; kk++) {
                    v = FR_FMA(x[i * ldx + s->a + kk], w[(s->k + kk) * FR_PANEL], v);
                }
            }
            y[i * ldy + j] = finish(v, e, i, j);
        }
    }
}

static void conv_depthwise(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans,
                           const float *w, int64_t m, int64_t n, const fr_epilogue *e) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            float v = 0.0f;
            for (const fr_span *s = spans; s < spans + n_spans; s++) {
                v = FR_FMA(x[i * ldx + s->a + j], w[s->k + j], v);
            }
            y[i * ldy + j] = finish(v, e, i, j);
        }
    }
}

/* B^T d of six values, step apart. */
static void wino_line_in(float *t, const float *d, int step) {
    const float a = d[0], b = d[step], c = d[2 * step], f = d[3 * step], g = d[4 * step] - c, h = f - b;
    const float e = FR_FMA(-4.0f, c, d[4 * step]), k = FR_FMA(-4.0f, b, f);
    t[0] = FR_FMA(4.0f, a - c, g);
    t[step] = e + k;
    t[2 * step] = e - k;
    t[3 * step] = FR_FMA(2.0f, h, g);
    t[4 * step] = FR_FMA(-2.0f, h, g);
    t[5 * step] = FR_FMA(-4.0f, h, d[5 * step] - f);
}
/* A^T m of six products, step apart: four sums, to_step apart. */
static void wino_line_out(float *y, int to_step, const float *m, int step) {
    const float a = m[step] + m[2 * step], b = m[step] - m[2 * step], c = m[3 * step] + m[4 * step],
                d = m[3 * step] - m[4 * step];
    y[0] = m[0] + (a + c);
    y[to_step] = FR_FMA(2.0f, d, b);
    y[2 * to_step] = FR_FMA(4.0f, c, a);
    y[3 * to_step] = FR_FMA(8.0f, d, b) + m[5 * step];
}
static void wino_in(float *v, int64_t step, const float *const *rows, const float *const *border, int from, int to,
                    int64_t channels) {
    for (int64_t c = 0; c < channels; c++) {
        float d[36], t[36];
        for (int q = 0; q < 36; q++) {
            const int i = q / 6, j = q % 6;
            d[q] = (j >= from && j < to ? rows : border)[i][j * channels + c];
        }
        for (int j = 0; j < 6; j++) {
            wino_line_in(t + j, d + j, 6);
        }
        for (int i = 0; i < 6; i++) {
            wino_line_in(d + 6 * i, t + 6 * i, 1);
        }
        for (int q = 0; q < 36; q++) {
            v[q * step + c] = d[q];
        }
    }
}
static void wino_out(float *y, int64_t ldy, int64_t y_row, const float *m, int64_t step, int rows, int columns, int64_t n,
                     const fr_epilogue *e) {
    for (int64_t j = 0; j < n; j++) {
        float d[36], t[24], s[16];
        for (int q = 0; q < 36; q++) {
            d[q] = m[q * step + j];
        }
        for (int q = 0; q < 6; q++) {
            wino_line_out(t + q, 6, d + q, 6);
        }
        for (int i = 0; i < 4; i++) {
            wino_line_out(s + 4 * i, 1, t + 6 * i, 1);
        }
        for (int i = 0; i < rows; i++) {
            fr_epilogue now = *e;
            now.residual = e->residual ? e->residual + i * y_row : NULL;
            for (int q = 0; q < columns; q++) {
                y[i * y_row + q * ldy + j] = finish(s[4 * i + q], &now, q, j);
            }
        }
    }
}

/* Dot of 32 activations and row r of a panel; w: the panel at that block, [8][16][4]. */
static int32_t dot8(const int8_t *w, const int8_t *q, int64_t r) {
    int32_t d = 0;
    for (int k = 0; k < FR_BLOCK; k++) {
        d += w[k / 4 * 64 + r * 4 + k % 4] * q[k];
    }
    return d;
}

static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t nb = a->kp / FR_BLOCK;
    (void)scratch;
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t row = p0 * FR_PANEL; row < p1 * FR_PANEL && row < n; row++) {
            const int8_t *q = a->q + i * a->kp, *panel = w + row / FR_PANEL * a->kp * FR_PANEL;
            int32_t sum = 0;
            float v = 0.0f;
            for (int64_t b = 0; b < nb; b++) {
                int32_t d = dot8(panel + b * FR_BLOCK * FR_PANEL, q + b * FR_BLOCK, row % FR_PANEL);
                if (a->blocked) {
                    v = FR_FMA(a->scale[i * nb + b], (float)d, v);
                } else {
                    sum += d;
                }
            }
            v = a->blocked ? v * wscale[row] : (float)sum * (wscale[row] * a->scale[i]);
            y[i * ldy + row] = finish(v, e, i, row);
        }
    }
}

/* Dot of 32 activations and the codes of row r of a W4 or W4O block. */
static int32_t dot4(const uint8_t *block, const int8_t *q, int64_t r) {
    int32_t d = 0;
    for (int k = 0; k < FR_BLOCK; k++) {
        uint8_t byte = block[k % 16 / 4 * 64 + r * 4 + k % 4];
        d += (k < 16 ? byte & 15 : byte >> 4) * q[k];
    }
    return d;
}
/* Half r of those at p. */
static float half_at(const uint8_t *p, int64_t r) {
    uint16_t h;
    memcpy(&h, p + 2 * r, 2);
    return fr_half_to_float(h);
}

static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t nb = a->kp / FR_BLOCK;
    (void)scratch;
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t row = p0 * FR_PANEL; row < p1 * FR_PANEL && row < n; row++) {
            const uint8_t *block = w + row / FR_PANEL * nb * FR_W4_BLOCK;
            const int64_t r = row % FR_PANEL;
            float v = 0.0f;
            for (int64_t b = 0; b < nb; b++, block += FR_W4_BLOCK) {
                float s = a->blocked ? a->scale[i * nb + b] : a->scale[i];
                int32_t d = dot4(block, a->q + i * a->kp + b * FR_BLOCK, r) - block[288 + r] * a->sum[i * nb + b];
                v = FR_FMA(half_at(block + 256, r) * s, (float)d, v);
            }
            y[i * ldy + row] = finish(v, e, i, row);
        }
    }
}

static void gemm_w4o(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t nb = a->kp / FR_BLOCK;
    (void)scratch;
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t row = p0 * FR_PANEL; row < p1 * FR_PANEL && row < n; row++) {
            const uint8_t *block = w + row / FR_PANEL * nb * FR_W4O_BLOCK;
            const int64_t r = row % FR_PANEL;
            float v = 0.0f;
            for (int64_t b = 0; b < nb; b++, block += FR_W4O_BLOCK) {
                float s = a->blocked ? a->scale[i * nb + b] : a->scale[i], rest = half_at(block + 288, r);
                rest = rest * (float)a->sum[i * nb + b];
                v = FR_FMA(s, FR_FMA(half_at(block + 256, r), (float)dot4(block, a->q + i * a->kp + b * FR_BLOCK, r), rest), v);
            }
            y[i * ldy + row] = finish(v, e, i, row);
        }
    }
}

static void gemm_w8b(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t nb = a->kp / FR_BLOCK;
    (void)scratch;
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t row = p0 * FR_PANEL; row < p1 * FR_PANEL && row < n; row++) {
            const uint8_t *block = w + row / FR_PANEL * nb * FR_W8B_BLOCK;
            const int64_t r = row % FR_PANEL;
            float v = 0.0f;
            for (int64_t b = 0; b < nb; b++, block += FR_W8B_BLOCK) {
                const float s = a->blocked ? a->scale[i * nb + b] : a->scale[i];
                const int32_t d = dot8((const int8_t *)block, a->q + i * a->kp + b * FR_BLOCK, r);
                v = FR_FMA(half_at(block + 512, r) * s, (float)d, v);
            }
            y[i * ldy + row] = finish(v, e, i, row);
        }
    }
}

/* q = round(x * inv) limited to [-127, 127] (NaN gives 0) for n elements, zeros up to np; sums of blocks of 32. */
static void quantize_span(int8_t *q, int32_t *sum, const float *x, int64_t n, int64_t np, float inv) {
    for (int64_t i = 0; i < np; i++) {
        float v = i < n ? x[i] * inv : 0.0f;
        v = v != v ? 0.0f : fr_max(-127.0f, fr_min(127.0f, v));
        q[i] = (int8_t)rintf(v);
    }
    for (int64_t b = 0; b < np / FR_BLOCK; b++) {
        sum[b] = 0;
        for (int k = 0; k < FR_BLOCK; k++) {
            sum[b] += q[b * FR_BLOCK + k];
        }
    }
}

/* One scale for n elements, q and sum up to np. */
static void quantize_part(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t n, int64_t np) {
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        top = fr_abs_bits(x[i]) > top ? fr_abs_bits(x[i]) : top;
    }
    float a = fr_from_bits((uint32_t)top);
    if (top >= 0x7f800000 || a < 0x1p-100f) {
        *scale = top >= 0x7f800000 ? fr_from_bits(0x7fc00000u) : 0.0f;
        memset(q, 0, (size_t)np);
        memset(sum, 0, (size_t)(np / FR_BLOCK) * 4);
        return;
    }
    *scale = a * (1.0f / 127.0f);
    quantize_span(q, sum, x, n, np, 127.0f / a);
}

static void quantize(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, int blocked) {
    const int64_t nb = (k + FR_BLOCK - 1) / FR_BLOCK;
    if (!blocked) {
        quantize_part(q, scale, sum, x, k, nb * FR_BLOCK);
        return;
    }
    for (int64_t b = 0; b < nb; b++) {
        int64_t at = b * FR_BLOCK, n = k - at < FR_BLOCK ? k - at : FR_BLOCK;
        quantize_part(q + at, scale + b, sum + b, x + at, n, FR_BLOCK);
    }
}

static void quantize_static(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, float s) {
    *scale = s;
    quantize_span(q, sum, x, k, (k + FR_BLOCK - 1) / FR_BLOCK * FR_BLOCK, 1.0f / s);
}

/* The sum of 16 lanes, folded as isa.h says. */
static float fold(float *lane) {
    for (int h = 8; h > 0; h /= 2) {
        for (int j = 0; j < h; j++) {
            lane[j] += lane[j + h];
        }
    }
    return lane[0];
}

static void layer_norm(float *y, const float *x, const float *residual, const float *gamma, const float *beta, int64_t n,
                       float eps) {
    float lane[16] = {0}, square[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        y[i] = residual ? x[i] + residual[i] : x[i];
        lane[i % 16] += y[i];
    }
    float mean = fold(lane) / (float)n;
    for (int64_t i = 0; i < n; i++) {
        y[i] = y[i] - mean;
        square[i % 16] += y[i] * y[i];
    }
    float inv = 1.0f / sqrtf(fold(square) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) {
        float v = y[i] * inv * gamma[i];
        y[i] = beta ? v + beta[i] : v;
    }
}

static void rms_norm(float *y, const float *x, const float *residual, const float *gamma, int64_t n, float eps) {
    float square[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        y[i] = residual ? x[i] + residual[i] : x[i];
        square[i % 16] += y[i] * y[i];
    }
    float inv = 1.0f / sqrtf(fold(square) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = y[i] * inv * gamma[i];
    }
}

static float softmax_top(float *x, int64_t n, float *most) {
    float top = -INFINITY, lane[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        top = x[i] > top || x[i] != x[i] ? x[i] : top;
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = top == -INFINITY ? 0.0f : fr_exp(x[i] - top);
        lane[i % 16] += x[i];
    }
    *most = top;
    return fold(lane);
}
static float softmax(float *x, int64_t n) {
    float top;
    return softmax_top(x, n, &top);
}

static void unary(int kind, float *y, const float *x, int64_t n, float p, float q) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = fr_unary(kind, x[i], p, q);
    }
}

static void scale(float *y, const float *x, int64_t n, float s) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * s;
    }
}

/* ---- rows (the rest is in rows.h) ---- */

static float reduce_step(int kind, float l, float v) {
    switch (kind) {
    case FRUGAL_R_MAX:
        return v > l || v != v ? v : l;
    case FRUGAL_R_MIN:
        return v < l || v != v ? v : l;
    case FRUGAL_R_PROD:
        return l * v;
    case FRUGAL_R_L1:
        return l + fr_abs(v);
    case FRUGAL_R_SUM_SQUARE:
    case FRUGAL_R_L2:
        return l + v * v;
    default:
        return l + v;
    }
}

static float reduce_column(int kind, const float *x, int64_t step, int64_t count) {
    const int plain = kind == FRUGAL_R_MAX || kind == FRUGAL_R_MIN || kind == FRUGAL_R_PROD ? kind : FRUGAL_R_SUM;
    float lane[16];
    for (int j = 0; j < 16; j++) {
        lane[j] = kind == FRUGAL_R_MAX ? -INFINITY : kind == FRUGAL_R_MIN ? INFINITY : kind == FRUGAL_R_PROD ? 1.0f : 0.0f;
    }
    for (int64_t i = 0; i < count; i++) {
        lane[i % 16] = reduce_step(kind, lane[i % 16], x[i * step]);
    }
    for (int h = 8; h > 0; h /= 2) {
        for (int j = 0; j < h; j++) {
            lane[j] = reduce_step(plain, lane[j], lane[j + h]);
        }
    }
    return lane[0];
}
static float row_reduce(int kind, const float *x, int64_t n) { return reduce_column(kind, x, 1, n); }
static void row_reduce_columns(int kind, float *y, const float *x, int64_t step, int64_t count, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        y[j] = reduce_column(kind, x + j, step, count);
    }
}

static void row_extremes(const float *x, int64_t n, float *low, float *high) {
    *low = *high = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        *low = fr_min(x[i], *low);
        *high = fr_max(x[i], *high);
    }
}

static void row_softmax_columns(float *y, const float *x, int64_t step, int64_t count, int64_t n, int log) {
    for (int64_t j = 0; j < n; j++) {
        float top = -INFINITY, lane[16] = {0};
        for (int64_t i = 0; i < count; i++) {
            const float v = x[i * step + j];
            top = v > top || v != v ? v : top;
        }
        for (int64_t i = 0; i < count; i++) {
            const float v = top == -INFINITY ? 0.0f : fr_exp(x[i * step + j] - top);
            lane[i % 16] += v;
            if (!log) {
                y[i * step + j] = v;
            }
        }
        const float sum = fold(lane), by = sum == 0.0f ? 0.0f : 1.0f / sum, less = fr_log(sum);
        for (int64_t i = 0; i < count; i++) {
            float *to = y + i * step + j;
            *to = log ? (x[i * step + j] - top) - less : *to * by;
        }
    }
}

static void floats_of_halves(float *y, const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = fr_half_to_float(x[i]);
    }
}
static void halves_of_floats(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = fr_float_to_half(x[i]);
    }
}

/* ---- integer convolution ---- */

/* limit and rounding of isa.h, plus zero. */
static uint8_t to_code(float v, int32_t zero, int32_t low, int32_t high) {
    const float least = (float)(low - zero), most = (float)(high - zero);
    return (uint8_t)((int32_t)rintf(v > least ? (v < most ? v : most) : least) + zero);
}

/* Stores the sum of channel j of pixel i. */
static void put_sum(const fr_qconv *q, int64_t i, int64_t j, uint32_t acc) {
    const int32_t *p = q->params + j / FR_PANEL * FR_QPARAMS + j % FR_PANEL;
    const int64_t at = i * q->ldy + j;
    int32_t sum;
    acc += (uint32_t)p[0] - (q->window ? (uint32_t)p[48] * (uint32_t)q->window[i] : 0);
    memcpy(&sum, &acc, 4);
    const float v = (float)sum * fr_from_bits((uint32_t)p[32]);
    if (q->dtype == 6) {
        ((int32_t *)q->y)[at] = sum;
    } else if (q->dtype == 1) {
        ((float *)q->y)[at] = v;
    } else {
        ((uint8_t *)q->y)[at] = to_code(v, q->zero, q->low, q->high) ^ (q->dtype == 3 ? 0x80 : 0);
    }
}

static void qconv(const fr_qconv *q) {
    const uint8_t *codes = q->codes;
    for (int64_t i = 0; i < q->pixels; i++) {
        for (int64_t j = 0; j < q->n; j++) {
            const int8_t *w = q->w + j / FR_PANEL * q->runs * q->quads * 64 + j % FR_PANEL * 4;
            uint32_t acc = 0;
            for (int64_t r = 0; r < q->runs; r++) {
                const uint8_t *x = codes + q->pixel[i] + q->run[r];
                for (int64_t k = 0; k < 4 * q->quads; k++) {
                    acc += (uint32_t)(x[k] * w[k / 4 * 64 + k % 4]);
                }
                w += q->quads * 64;
            }
            put_sum(q, i, j, acc);
        }
    }
}

static void qdepth(const fr_qconv *q) {
    const uint8_t *codes = q->codes;
    for (int64_t i = 0; i < q->pixels; i++) {
        for (int64_t j = 0; j < q->n; j++) {
            const int8_t *w = q->w + j / FR_PANEL * q->quads * 64 + j % FR_PANEL * 4;
            uint32_t acc = 0;
            for (int64_t k = 0; k < 4 * q->quads; k++) {
                acc += (uint32_t)(codes[q->pixel[i] + q->run[k] + j] * w[k / 4 * 64 + k % 4]);
            }
            put_sum(q, i, j, acc);
        }
    }
}

static void qadd(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p) {
    for (int64_t i = 0; i < n; i++) {
        const float u = (float)((a[i] ^ p->flip_a) - p->za) * p->ma, v = (float)((b[i] ^ p->flip_b) - p->zb) * p->mb;
        y[i] = to_code(u + v, p->zero, p->low, p->high) ^ p->flip_y;
    }
}

/* ---- attention ---- */

static void widen(float *y, const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = fr_half_to_float(x[i]);
    }
}

static void pack_rows(float *dst, const void *src, int64_t ld, int form, int64_t n, int64_t k) {
    for (int64_t j = 0; j < (n + FR_PANEL - 1) / FR_PANEL * FR_PANEL; j++) {
        for (int64_t c = 0; c < k; c++) {
            uint32_t bits = 0;
            uint16_t half = 0;
            if (j < n && form == FR_ROWS_HALF) {
                memcpy(&half, (const uint8_t *)src + j * ld + 2 * c, 2);
                bits = fr_bits(fr_half_to_float(half));
            } else if (j < n) {
                memcpy(&bits, (const uint8_t *)src + j * ld + 4 * c, 4);
            }
            memcpy(dst + j / FR_PANEL * FR_PANEL * k + c * FR_PANEL + j % FR_PANEL, &bits, 4);
        }
    }
}

static void qk8(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            int32_t s = 0;
            for (int64_t c = 0; c < d; c++) {
                s += q[i * ldq + c] * k[j * ldk + c];
            }
            y[i * ldy + j] = (float)s * (qs[i] * ks[j]);
        }
    }
}

static float weights8(int16_t *p, const float *w, const float *s, int64_t n) {
    const int64_t np = (n + 15) / 16 * 16;
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = w[i] == 0.0f ? 0 : fr_abs_bits(w[i] * s[i]);
        top = bits > top ? bits : top;
    }
    const float a = fr_from_bits((uint32_t)top);
    memset(p, 0, (size_t)np * sizeof *p);
    if (top >= 0x7f800000 || a < 0x1p-100f) {
        return top >= 0x7f800000 ? fr_from_bits(0x7fc00000u) : 0.0f;
    }
    for (int64_t i = 0; i < n; i++) {
        p[i] = (int16_t)rintf((w[i] == 0.0f ? 0.0f : w[i] * s[i]) * (32512.0f / a));
    }
    return a * (1.0f / 32512.0f);
}

static void pv8(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = 0; c < e; c++) {
            int32_t s = 0;
            for (int64_t j = 0; j < n; j++) {
                s += p[i * ldp + j] * v[j * ldv + c];
            }
            y[i * ldy + c] = (float)s * ps[i];
        }
    }
}

static const frugal_isa table = {.name = "scalar", .chunk = 16, .codes = FR_CODES_U8, FR_FUNCTIONS};
const frugal_isa *const fr_isa_scalar = &table;
