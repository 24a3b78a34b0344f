/* board_common.c - numbers as text, marks, the painted stack. */
#include "board.h"

void board_number(const char *name, uint32_t value) {
    char digits[12];
    int at = 11;
    digits[at--] = 0;
    digits[at--] = '\n';
    do { /* a core without division gets the quotient from shifts */
        uint32_t q = (value >> 1) + (value >> 2);
        q += q >> 4, q += q >> 8, q += q >> 16, q >>= 3;
        uint32_t r = value - q * 10;
        q += r > 9, r -= r > 9 ? 10 : 0;
        digits[at--] = (char)('0' + r);
        value = q;
    } while (value != 0);
    board_text(name);
    board_text(" ");
    board_text(digits + at + 1);
}

__attribute__((noinline, used)) void roi_begin(void) { __asm volatile("" ::: "memory"); }
__attribute__((noinline, used)) void roi_end(void) { __asm volatile("" ::: "memory"); }

#ifdef BOARD_STACK
extern uint32_t __bss_end[], __stack_top[];
enum { PAINT = 0x5aa5c33c, MOST = 8192 };

/* Words from the lowest place of the stack (at most 8 KiB below the top) up to a little below this function's own. */
static uintptr_t lowest(void) {
    const uintptr_t low = (uintptr_t)__bss_end, floor = (uintptr_t)__stack_top - MOST;
    return low > floor ? low : floor;
}
void __attribute__((noinline)) board_paint_stack(void) {
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    for (uintptr_t p = lowest(); p + 128 < here; p += 4)
        *(volatile uint32_t *)p = PAINT;
}
uint32_t board_stack_used(void) {
    uintptr_t p = lowest();
    while (p < (uintptr_t)__stack_top && *(volatile uint32_t *)p == PAINT)
        p += 4;
    return (uint32_t)((uintptr_t)__stack_top - p);
}
#else
void board_paint_stack(void) {}
uint32_t board_stack_used(void) { return 0; }
#endif
