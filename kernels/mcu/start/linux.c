/* linux.c - the self-test as a program. */
#include <stdio.h>
#include <stdlib.h>

#include "board.h"

void board_text(const char *text) { fputs(text, stdout); }
void board_exit(int code) { exit(code); }
