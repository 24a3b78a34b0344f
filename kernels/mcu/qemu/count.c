/* count.c - a plugin for QEMU (API 1: QEMU 4.2 to 8.2) that counts executed instructions between two addresses of the guest.
 *
 *   -plugin count.so,begin=0xADDR,end=0xADDR[,profile=on] -d plugin
 *
 * Each pass from begin to end prints "roi N instructions=M"; with profile=on the end of the run prints how many fell to each
 * symbol. The count is exact and the same in every run.  Distributions ship no qemu-plugin.h, so that what is used is declared
 * here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_outs(const char *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;
enum { INLINE_ADD = 0, NO_REGISTERS = 0, SYMBOLS = 2048, SHOWN = 40 };

static uint64_t total, at_begin, begin, end;
static int passes, profile;
static struct {
    const char *name;
    uint64_t count, at_begin, inside;
} symbols[SYMBOLS];
static int n_symbols;

/* The last place takes what does not fit. */
static int symbol_of(const char *name) {
    name = name ? name : "?";
    for (int i = 0; i < n_symbols; i++) {
        if (strcmp(symbols[i].name, name) == 0)
            return i;
    }
    if (n_symbols == SYMBOLS)
        return SYMBOLS - 1;
    symbols[n_symbols].name = strdup(name);
    return n_symbols++;
}

static void on_begin(unsigned cpu, void *data) {
    (void)cpu, (void)data;
    at_begin = total;
    for (int i = 0; i < n_symbols; i++)
        symbols[i].at_begin = symbols[i].count;
}

static void on_end(unsigned cpu, void *data) {
    char line[96];
    (void)cpu, (void)data;
    snprintf(line, sizeof line, "roi %d instructions=%" PRIu64 "\n", passes++, total - at_begin);
    qemu_plugin_outs(line);
    for (int i = 0; i < n_symbols; i++)
        symbols[i].inside += symbols[i].count - symbols[i].at_begin;
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    const size_t n = qemu_plugin_tb_n_insns(tb);
    (void)id;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint64_t at = qemu_plugin_insn_vaddr(insn);
        if (at == begin)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, NO_REGISTERS, NULL);
        if (at == end)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, NO_REGISTERS, NULL);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD, &total, 1);
        if (profile) {
            uint64_t *count = &symbols[symbol_of(qemu_plugin_insn_symbol(insn))].count;
            qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD, count, 1);
        }
    }
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *data) {
    char line[256];
    (void)id, (void)data;
    for (int shown = 0; profile && shown < SHOWN; shown++) {
        int best = 0;
        for (int i = 1; i < n_symbols; i++)
            best = symbols[i].inside > symbols[best].inside ? i : best;
        if (n_symbols == 0 || symbols[best].inside == 0)
            return;
        snprintf(line, sizeof line, "symbol %s instructions=%" PRIu64 "\n", symbols[best].name, symbols[best].inside);
        qemu_plugin_outs(line);
        symbols[best].inside = 0;
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "begin=", 6) == 0)
            begin = strtoull(argv[i] + 6, NULL, 0) & ~UINT64_C(1);
        else if (strncmp(argv[i], "end=", 4) == 0)
            end = strtoull(argv[i] + 4, NULL, 0) & ~UINT64_C(1);
        else if (strcmp(argv[i], "profile=on") == 0)
            profile = 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
    return 0;
}
