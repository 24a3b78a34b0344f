/* random.h - random numbers that depend on a seed and a counter alone. */
#ifndef FRUGAL_RANDOM_H
#define FRUGAL_RANDOM_H
#include <stdint.h>

/* Philox 4x32 with 10 rounds (Salmon et al. 2011). */
static inline void fr_philox(uint32_t w[4], uint64_t seed, uint64_t counter) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    w[0] = (uint32_t)counter, w[1] = (uint32_t)(counter >> 32), w[2] = w[3] = 0;
    for (int r = 0; r < 10; r++) {
        const uint64_t a = (uint64_t)0xD2511F53u * w[0], b = (uint64_t)0xCD9E8D57u * w[2];
        w[0] = (uint32_t)(b >> 32) ^ w[1] ^ k0;
        w[2] = (uint32_t)(a >> 32) ^ w[3] ^ k1;
        w[1] = (uint32_t)b;
        w[3] = (uint32_t)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

/* In [0, 1): 24 bits. */
static inline float fr_unit(uint32_t w) { return (float)(w >> 8) * 0x1p-24f; }
#endif
