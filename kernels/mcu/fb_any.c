/* fb_any.c - convolutions of every shape, for what the packed kernels do not take: plain loops over plain weights. */
#include "fb.h"
#include "fb_round.h"

/* Adds up one output channel; w: its weights, x0: its group's first channel, y0, x1: the window's corner in the spread image. */
static uint32_t window(const fb_any *l, const int8_t *x, const int8_t *w, int32_t wzero, int32_t top, int32_t left) {
    const int32_t cg = l->c / l->groups;
    uint32_t acc = 0;
    for (int32_t ky = 0; ky < l->kh; ky++) {
        const int32_t sy = top + ky * l->dh, iy = l->uh == 1 ? sy : sy / l->uh;
        for (int32_t kx = 0; kx < l->kw; kx++, w += cg) {
            const int32_t sx = left + kx * l->dw, ix = l->uw == 1 ? sx : sx / l->uw;
            if (sy < 0 || sx < 0 || iy >= l->h || ix >= l->w || iy * l->uh != sy || ix * l->uw != sx)
                continue; /* zx: adds nothing */
            const int8_t *p = x + (iy * l->w + ix) * l->c;
            for (int32_t k = 0; k < cg; k++)
                acc += (uint32_t)((p[k] - l->zx) * (w[k] - wzero));
        }
    }
    return acc;
}

void fb_conv_any(const fb_any *l, const uint32_t *data, const int8_t *x, void *y) {
    const fb_channel *consts = (const fb_channel *)(const void *)((const uint8_t *)data + l->consts);
    const int32_t cg = l->c / l->groups, og = l->co / l->groups, depth = l->kh * l->kw * cg;
    int32_t at = 0;
    for (int32_t oy = 0; oy < l->oh; oy++) {
        for (int32_t ox = 0; ox < l->ow; ox++) {
            const int8_t *w = (const int8_t *)data + l->weights;
            for (int32_t o = 0; o < l->co; o++, w += depth, at++) {
                const fb_channel *k = consts + o;
                const int32_t acc = (int32_t)((uint32_t)k->bias +
                                              window(l, x + o / og * cg, w, k->wzero, oy * l->sh - l->pt, ox * l->sw - l->pl));
                if (l->out == 0)
                    ((int8_t *)y)[at] = (int8_t)fb_code(acc, k->scale, l->zy, l->lo, l->hi);
                else if (l->out == 1)
                    ((int32_t *)y)[at] = acc;
                else
                    ((float *)y)[at] = (float)acc * k->scale;
            }
        }
    }
}

/* The taps of one output pixel, a channel at a time below each other; taps outside read a row of zx. */
void fb_depth_any(const fb_any *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    const fb_channel *consts = (const fb_channel *)(const void *)((const uint8_t *)data + l->consts);
    const int32_t n = l->co;
    int32_t *acc = tmp;
    int8_t *border = (int8_t *)(acc + n);
    memset(border, l->zx, (size_t)n);
    for (int32_t oy = 0; oy < l->oh; oy++) {
        for (int32_t ox = 0; ox < l->ow; ox++, y += n) {
            const int8_t *w = (const int8_t *)data + l->weights;
            for (int32_t o = 0; o < n; o++)
                acc[o] = consts[o].bias;
            for (int32_t ky = 0; ky < l->kh; ky++) {
                const int32_t iy = oy * l->sh - l->pt + ky * l->dh;
                for (int32_t kx = 0; kx < l->kw; kx++, w += n) {
                    const int32_t ix = ox * l->sw - l->pl + kx * l->dw;
                    const int8_t *p = border;
                    if (iy >= 0 && iy < l->h && ix >= 0 && ix < l->w)
                        p = x + (iy * l->w + ix) * n;
                    for (int32_t o = 0; o < n; o++)
                        acc[o] += p[o] * w[o];
                }
            }
            for (int32_t o = 0; o < n; o++)
                y[o] = (int8_t)fb_code(acc[o], consts[o].scale, l->zy, l->lo, l->hi);
        }
    }
}
