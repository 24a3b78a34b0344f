/* board.h - what the self-test wants of a board: text out, an exit code, marks for the instruction counter. */
#ifndef BOARD_H
#define BOARD_H
#include <stdint.h>
void board_text(const char *text);
void board_number(const char *name, uint32_t value);
void board_exit(int code);
/* Empty functions that are never inlined: the counter counts what runs between them. */
void roi_begin(void);
void roi_end(void);
/* Bytes of stack that main may use are painted, and counted afterwards; 0 where the board does not say. */
void board_paint_stack(void);
uint32_t board_stack_used(void);
#endif
