/* selftest.c - runs the model on inputs whose outputs the PC computed, and compares every byte.  Exit code 0: all equal. */
#include "board.h"
#include "golden.h"
#include "model.h"

/* Bytes of golden that differ from those of a tensor. */
static uint32_t differing(const uint8_t *golden, const void *tensor, uint32_t n) {
    const uint8_t *p = tensor;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++)
        bad += golden[i] != p[i];
    return bad;
}

static void fill(void *tensor, const uint8_t *golden, uint32_t n) {
    uint8_t *p = tensor;
    for (uint32_t i = 0; i < n; i++)
        p[i] = golden[i];
}

/* One case: inputs (states at the first only), run, outputs. */
static uint32_t run_case(uint32_t number) {
    const uint8_t *in = golden_in + number * GOLDEN_IN_BYTES, *out = golden_out + number * GOLDEN_OUT_BYTES;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < GOLDEN_INPUTS; i++) {
        fill(golden_inputs[i].tensor, in, golden_inputs[i].bytes);
        in += golden_inputs[i].bytes;
    }
    roi_begin();
    model_run();
    roi_end();
    for (uint32_t i = 0; i < GOLDEN_OUTPUTS; i++) {
        bad += differing(out, golden_outputs[i].tensor, golden_outputs[i].bytes);
        out += golden_outputs[i].bytes;
    }
    return bad;
}

int main(void) {
    uint32_t bad = 0;
    roi_begin();
    const int status = model_init();
    roi_end();
    if (status != 0) {
        board_text("FAIL: the model's constants do not have their checksum\n");
        return 2;
    }
    golden_states();
    board_paint_stack();
    for (uint32_t i = 0; i < GOLDEN_CASES; i++) {
        const uint32_t wrong = run_case(i);
        if (wrong != 0)
            board_number("case", i), board_number("differing bytes", wrong);
        bad += wrong;
    }
    board_number("cases", GOLDEN_CASES);
    board_number("stack", board_stack_used());
    board_text(bad == 0 ? "PASS\n" : "FAIL\n");
    return bad == 0 ? 0 : 1;
}
