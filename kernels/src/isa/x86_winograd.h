/* x86_winograd.h - fr_qwino for the x86-64 files, in terms of their vectors: included behind put_* with VW, vi, vimul,
 * wino_put and wino_panels.
 *
 * With the points 0, +-1, +-2 and the kernel's transform times 24, everything stays in integers: the codes' transform fits int16
 * (at most 68 * 255), so does the kernel's (at most 144 * 128), and the output's is 576 times the sum, modulo 2^32.  Times the
 * inverse of 9, an arithmetic shift by 6 gives the sum where it is below 2^25 in size (the check has seen to that). */

/* Codes at six places along a line to six values: B^T d. */
INLINE void qwino_line_in(__m256i t[6], const __m256i d[6]) {
    const __m256i e = _mm256_sub_epi16(d[4], _mm256_slli_epi16(d[2], 2)), f = _mm256_sub_epi16(d[3], _mm256_slli_epi16(d[1], 2));
    const __m256i g = _mm256_sub_epi16(d[4], d[2]), h = _mm256_slli_epi16(_mm256_sub_epi16(d[3], d[1]), 1);
    t[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), g);
    t[1] = _mm256_add_epi16(e, f);
    t[2] = _mm256_sub_epi16(e, f);
    t[3] = _mm256_add_epi16(g, h);
    t[4] = _mm256_sub_epi16(g, h);
    t[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_slli_epi16(h, 1));
}
/* Six products along a line to four sums: A^T m. */
INLINE void qwino_line_out(vi y[4], const vi m[6]) {
    const vi a = viadd(m[1], m[2]), b = visub(m[1], m[2]), c = viadd(m[3], m[4]), d = visub(m[3], m[4]);
    y[0] = viadd(m[0], viadd(a, c));
    y[1] = viadd(b, vishl(d, 1));
    y[2] = viadd(a, vishl(c, 2));
    y[3] = viadd(b, vishl(viadd(vishl(d, 2), m[5]), 1));
}

/* A tile's codes to v: 36 places, step apart, of c values. */
INLINE void wino_tile_in(const fr_qwino *w, const fr_wino_tile *tile, int16_t *v, int64_t step, const int is_signed) {
    for (int64_t c = 0; c < w->c; c += 16) {
        __m256i r[6][6], d[6];
        UNROLL for (int j = 0; j < 6; j++) {
            const uint8_t *const *row = j >= tile->from && j < tile->to ? tile->row : w->border;
            __m256i t[6];
            UNROLL for (int i = 0; i < 6; i++) {
                const __m128i codes = _mm_loadu_si128((const void *)(row[i] + j * w->c + c));
                d[i] = is_signed ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
            }
            qwino_line_in(t, d);
            UNROLL for (int i = 0; i < 6; i++) { r[i][j] = t[i]; }
        }
        UNROLL for (int i = 0; i < 6; i++) {
            qwino_line_in(d, r[i]);
            UNROLL for (int j = 0; j < 6; j++) { _mm256_storeu_si256((void *)(v + (6 * i + j) * step + c), d[j]); }
        }
    }
}

/* The 36 products of a tile (16 channels each, step apart) to its output pixels; p: the panel. */
INLINE void wino_tile_out(const fr_qwino *w, fr_qconv *out, const rounding *r, const fr_wino_tile *tile, const int32_t *m,
                          int64_t step, int64_t p) {
    const int32_t *bias = out->params + p * FR_QPARAMS + (w->is_signed ? 16 : 0);
    const vi ninth = viset(0x38e38e39);
    vi mid[16 / VW][4][6];
    UNROLL for (int h = 0; h < 16 / VW; h++) {
        UNROLL for (int j = 0; j < 6; j++) {
            vi d[6], t[4];
            UNROLL for (int i = 0; i < 6; i++) { d[i] = LD(m + (6 * i + j) * step + h * VW); }
            qwino_line_out(t, d);
            UNROLL for (int i = 0; i < 4; i++) { mid[h][i][j] = t[i]; }
        }
    }
    UNROLL for (int i = 0; i < 4; i++) {
        vi s[16 / VW][4];
        UNROLL for (int h = 0; h < 16 / VW; h++) {
            qwino_line_out(s[h], mid[h][i]);
            UNROLL for (int j = 0; j < 4; j++) { s[h][j] = viadd(visra(vimul(s[h][j], ninth), 6), LD(bias + h * VW)); }
        }
        if (i < tile->rows) {
            out->y = tile->y + i * w->y_row;
            wino_put(out, r, s, p, tile->columns);
        }
    }
}

static void qwino(const fr_qwino *w) {
    const rounding r = rounding_of(w->out.zero, w->out.low, w->out.high, w->out.dtype == 3 ? 0x80 : 0);
    const int64_t panels = (w->out.n + 15) / 16;
    int16_t *v = w->scratch;
    int32_t *m = (int32_t *)(void *)(v + 36 * FR_WINO_TILES * w->c);
    fr_qconv out = w->out;
    for (int64_t t = 0; t < w->tiles; t++) {
        if (w->is_signed) {
            wino_tile_in(w, w->tile + t, v + t * w->c, w->tiles * w->c, 1);
        } else {
            wino_tile_in(w, w->tile + t, v + t * w->c, w->tiles * w->c, 0);
        }
    }
    for (int64_t p = 0, many; p < panels; p += many) {
        many = wino_panels(w, v, m, p, panels - p);
        for (int64_t t = 0; t < w->tiles; t++) {
            for (int64_t k = 0; k < many; k++) {
                wino_tile_out(w, &out, &r, w->tile + t, m + (t * 36 * many + k) * 16, many * 16, p + k);
            }
        }
    }
}
