/* isa.c - which instruction sets this build and this CPU have, and finding one by name.  No state: the CPU is asked each time. */
#include <string.h>

#include "isa.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

fr_x86 fr_x86_here(void) {
    fr_x86 cpu = {{0}, 0};
    uint32_t a, b, c, d, high;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        cpu.word[FR_X86_1C] = c;
        if (c >> 27 & 1) { /* xgetbv exists, and says which registers the operating system saves */
            __asm__ volatile("xgetbv" : "=a"(cpu.saved), "=d"(high) : "c"(0));
        }
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        cpu.word[FR_X86_7B] = b;
        cpu.word[FR_X86_7C] = c;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            cpu.word[FR_X86_71A] = a;
        }
    }
    return cpu;
}

enum { AVX2 = 1, AVXVNNI = 2, AVX512VNNI = 4, ALL_X86 = 7 };
static const struct {
    const char *name;
    int needed_by, word, bit;
} features[] = {
    {"avx2", ALL_X86, FR_X86_7B, 5},         {"fma", ALL_X86, FR_X86_1C, 12},         {"f16c", ALL_X86, FR_X86_1C, 29},
    {"avx_vnni", AVXVNNI, FR_X86_71A, 4},    {"avx512f", AVX512VNNI, FR_X86_7B, 16},  {"avx512dq", AVX512VNNI, FR_X86_7B, 17},
    {"avx512bw", AVX512VNNI, FR_X86_7B, 30}, {"avx512vl", AVX512VNNI, FR_X86_7B, 31}, {"avx512_vnni", AVX512VNNI, FR_X86_7C, 11},
};
static const char *x86_lacks(const fr_x86 *cpu, int isa) {
    const uint32_t saved = isa == AVX512VNNI ? 0xe6 : 0x06; /* SSE and AVX; mask and upper registers too */
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if ((features[i].needed_by & isa) && !(cpu->word[features[i].word] >> features[i].bit & 1)) {
            return features[i].name;
        }
    }
    return (cpu->saved & saved) == saved ? "" : "registers saved by the operating system";
}
const char *fr_avx2_lacks(const fr_x86 *cpu) { return x86_lacks(cpu, AVX2); }
const char *fr_avxvnni_lacks(const fr_x86 *cpu) { return x86_lacks(cpu, AVXVNNI); }
const char *fr_avx512vnni_lacks(const fr_x86 *cpu) { return x86_lacks(cpu, AVX512VNNI); }

static const char *avx2_lacks(void) {
    const fr_x86 cpu = fr_x86_here();
    return fr_avx2_lacks(&cpu);
}
static const char *avx512vnni_lacks(void) {
    const fr_x86 cpu = fr_x86_here();
    return fr_avx512vnni_lacks(&cpu);
}
static const char *avxvnni_lacks(void) {
#if defined(FRUGAL_AVXVNNI_TEST)
    return FRUGAL_AVXVNNI_TEST == 1 ? avx512vnni_lacks() : avx2_lacks();
#else
    const fr_x86 cpu = fr_x86_here();
    return fr_avxvnni_lacks(&cpu);
#endif
}

#elif defined(__linux__) && (defined(__aarch64__) || defined(__riscv))
#include <sys/auxv.h>
/* The kernel tells, and speaks only of what it saves for a process. */
#define UNLESS(bit, type, name) ((getauxval(type) & (bit)) != 0 ? "" : name)
#endif
#if defined(__aarch64__)
/* Where the kernel is not asked, neon, which every aarch64 CPU has, is used. */
static const char *dotprod_lacks(void) {
#if defined(__linux__) && defined(HWCAP_ASIMDDP)
    return UNLESS(HWCAP_ASIMDDP, AT_HWCAP, "asimddp");
#else
    return "asimddp";
#endif
}
static const char *i8mm_lacks(void) {
#if defined(__linux__) && defined(HWCAP2_I8MM)
    return *dotprod_lacks() ? dotprod_lacks() : UNLESS(HWCAP2_I8MM, AT_HWCAP2, "i8mm");
#else
    return "i8mm";
#endif
}
#elif defined(__riscv)
static const char *rvv_lacks(void) {
#if defined(__riscv_vector) || defined(FRUGAL_RVV_TEST) /* built for CPUs that have it; or told that this one has */
    return "";
#elif defined(__linux__)
    return UNLESS(1ul << ('V' - 'A'), AT_HWCAP, "v");
#else
    return "v";
#endif
}
#endif
static const char *nothing(void) { return ""; }

/* Best first. */
static const struct {
    const char *name;
    const frugal_isa *const *isa; /* *isa is NULL when its file was compiled without the instructions */
    const char *(*lacks)(void);
} entries[] = {
#if defined(__x86_64__) || defined(__i386__)
    {"avx512vnni", &fr_isa_avx512vnni, avx512vnni_lacks},
    {"avxvnni", &fr_isa_avxvnni, avxvnni_lacks},
    {"avx2", &fr_isa_avx2, avx2_lacks},
#elif defined(__aarch64__)
    {"i8mm", &fr_isa_i8mm, i8mm_lacks},
    {"dotprod", &fr_isa_dotprod, dotprod_lacks},
    {"neon", &fr_isa_neon, nothing},
#elif defined(__riscv)
    {"rvv", &fr_isa_rvv, rvv_lacks},
#endif
    {"scalar", &fr_isa_scalar, nothing},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

const char *frugal_isa_known(uint32_t i) { return i < ENTRIES ? entries[i].name : NULL; }

static const char *lacks(int k) { return *entries[k].isa ? entries[k].lacks() : "build"; }

const char *frugal_isa_lacks(const char *name) {
    for (int k = 0; name && k < ENTRIES; k++) {
        if (!strcmp(name, entries[k].name)) {
            return lacks(k);
        }
    }
    return NULL;
}

const char *frugal_isa_list(uint32_t i) {
    for (int k = 0; k < ENTRIES; k++) {
        if (!*lacks(k) && i-- == 0) {
            return entries[k].name;
        }
    }
    return NULL;
}

const frugal_isa *frugal_isa_find(const char *name) {
    for (int k = 0; name && k < ENTRIES; k++) {
        if ((!strcmp(name, "auto") || !strcmp(name, entries[k].name)) && !*lacks(k)) {
            return *entries[k].isa;
        }
    }
    return NULL;
}

const char *frugal_isa_name(const frugal_isa *isa) { return isa ? isa->name : ""; }
