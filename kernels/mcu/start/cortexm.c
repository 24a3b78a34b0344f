/* cortexm.c - from reset to main on any Cortex-M; a fault ends the self-test with code 125. */
#include "board.h"

extern uint32_t __stack_top[], __data_load[], __data_start[], __data_end[], __bss_start[], __bss_end[];
int main(void);
void Reset_Handler(void);

static void fault(void) { board_exit(125); }

typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) const vector board_vectors[16] = {
    (vector)(void *)__stack_top, Reset_Handler, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault};

__attribute__((noreturn, used)) void Reset_Handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the FPU, and MVE */
    __asm volatile("dsb\n isb" ::: "memory");
#endif
    const uint32_t *from = __data_load;
    for (uint32_t *to = __data_start; to < __data_end;)
        *to++ = *from++;
    for (volatile uint32_t *to = __bss_start; to < __bss_end; to++)
        *to = 0;
    board_exit(main());
    for (;;) {
    }
}
