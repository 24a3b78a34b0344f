/* semihost.c - text and exit code through the debugger or emulator (Arm M-profile, RISC-V). */
#include "board.h"

enum { SYS_WRITE0 = 4, SYS_EXIT_EXTENDED = 0x20, STOPPED = 0x20026 };

#if defined(__riscv)
static __attribute__((noinline, aligned(16))) void call(int op, const void *arg) {
    register long a0 __asm("a0") = op;
    register const void *a1 __asm("a1") = arg;
    __asm volatile(".balign 16\n.option push\n.option norvc\n slli x0,x0,0x1f\n ebreak\n srai x0,x0,7\n.option pop\n"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
}
#else
static void call(int op, const void *arg) {
    register int r0 __asm("r0") = op;
    register const void *r1 __asm("r1") = arg;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
#endif

void board_text(const char *text) { call(SYS_WRITE0, text); }

void board_exit(int code) {
    const unsigned long block[2] = {STOPPED, (unsigned long)code};
    call(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
