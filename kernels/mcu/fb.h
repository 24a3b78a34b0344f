/* fb.h - the kernels for small cores: int8 networks, batch 1, no memory of their own, no operating system.
 *
 * Every function gives the bytes of the operation of the same meaning in frugal_plan.h.  Codes are signed here: an unsigned code
 * of the plan less 128, and so are zero points and limits.  Images are [h, w, c].  Constants lie in one array of 32-bit words
 * (`data`), which a checksum guards; a layer names its own by their byte offset, so that a layer is plain numbers as well.
 *
 * Convolution and the like: acc = bias + sum of (x - zx) w, in int32;  y = min(max(rhe((float)acc * scale) + zy, lo), hi), where
 * rhe rounds half to even.  The compiler of bundles (frugal/deploy) packs weights for one of three back ends and keeps to what
 * each can do; what none takes runs in fb_conv_any and fb_depth_any, which take every shape.
 */
#ifndef FB_H
#define FB_H
#include <stdint.h>

/* One output channel of fb_conv_any, fb_depth_any and the portable back end. */
typedef struct fb_channel {
    int32_t bias; /* fb_conv_any: the model's; elsewhere less zx times the sum of the weights */
    float scale;
    int32_t wzero; /* fb_conv_any: the zero point of the weights */
} fb_channel;

/* A convolution that moves in one group over an image, padded with zx. */
typedef struct fb_conv {
    int32_t h, w, c, kh, kw, sh, sw, pt, pl, oh, ow, co;
    int32_t zx, zy, lo, hi;
    uint32_t weights, consts; /* byte offsets; the layout is the back end's own */
} fb_conv;

/* Back ends: fb_portable.c, fb_dsp.c, fb_mve.c.  tmp: scratch, 8-aligned, as many bytes as frugal.deploy.kernels says.
 * conv: co a multiple of 4, or one pixel;  fc: one pixel, y is written up to a multiple of 4;  dw3: a 3 x 3 kernel a channel, c a
 * multiple of 4, equal strides of 1 or 2.  All three saturate to int8; fb_clamp does lo and hi where they are closer. */
void fb_conv_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp);
void fb_fc_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp);
void fb_dw3_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp);

/* Every shape: groups, dilation d, spread u (u - 1 pixels of zx between those of x), zero points of the weights. */
typedef struct fb_any {
    int32_t h, w, c, kh, kw, sh, sw, pt, pl, oh, ow, co;
    int32_t zx, zy, lo, hi;
    uint32_t weights, consts;            /* int8 [co][kh][kw][c / groups], fb_channel [co] */
    int32_t groups, dh, dw, uh, uw, out; /* out 0: codes, 1: acc as int32, 2: acc * scale as float32 */
} fb_any;
void fb_conv_any(const fb_any *l, const uint32_t *data, const int8_t *x, void *y);
/* One kernel a channel, c == co, no spread: weights int8 [kh][kw][c]; tmp: 4 co + c bytes. */
void fb_depth_any(const fb_any *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp);

/* y = rhe(t) + zy within [lo, hi], t = (a - za) ma + (b - zb) mb, each operation rounded.  ia, ib: ma, mb times 2^21 as integers,
 * for cores without an FPU; 0 both where the difference cannot be told that way. */
typedef struct fb_add {
    int32_t n, za, zb, zy, lo, hi;
    float ma, mb;
    int32_t ia, ib;
} fb_add;
void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y);

/* mean over windows: y = rhe((float)(sum of (x - zx)) * (m / count)) + zy; count: the pixels inside x, or all of the window where
 * padded is 1.  maximum (kind 2): of the codes. */
typedef struct fb_pool {
    int32_t h, w, c, kh, kw, sh, sw, dh, dw, pt, pl, oh, ow;
    int32_t zx, zy, kind;
    float m;
} fb_pool;
void fb_pool_run(const fb_pool *l, const int8_t *x, int8_t *y);

/* rows of n codes: e = table[max - x], y = rhe(e / sum of e * m) + zy; table: float [256] at a byte offset of data. */
typedef struct fb_softmax {
    int32_t rows, n, zy;
    float m;
    uint32_t table;
} fb_softmax;
void fb_softmax_run(const fb_softmax *l, const uint32_t *data, const int8_t *x, int8_t *y);

/* y = table[unsigned code of x], elements of 1, 2, 4 bytes. */
typedef struct fb_lookup {
    int32_t n, size;
    uint32_t table;
} fb_lookup;
void fb_lookup_run(const fb_lookup *l, const uint32_t *data, const int8_t *x, void *y);

/* Float32 to codes: y = rhe(x / scale) + zy; from [c, pixels] to [pixels, c]. */
typedef struct fb_codes {
    int32_t c, pixels, zy;
    float scale;
} fb_codes;
void fb_codes_run(const fb_codes *l, const float *x, int8_t *y);

/* blocks of `bytes` bytes, from one to the next step_x and step_y bytes (SLICE, CONCAT). */
typedef struct fb_copy {
    int32_t blocks, bytes, step_x, step_y;
} fb_copy;
void fb_copy_run(const fb_copy *l, const void *x, void *y);
void fb_clamp(int8_t *y, int32_t n, int32_t lo, int32_t hi);
/* Between unsigned and signed codes; y may be x. */
void fb_flip(int8_t *y, const int8_t *x, int32_t n);

/* 32 bits that change with every word, and with the order of words: a = sum of words + 1, b = sum of the a's, a ^ b rotated. */
uint32_t fb_checksum(const uint32_t *words, uint32_t n, uint32_t start);
#endif
