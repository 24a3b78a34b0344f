/* riscv.S - from reset to main in machine mode, RV32 or RV64. */
    .section .text.start, "ax"
    .globl _start
_start:
    la   sp, __stack_top
    .option push
    .option norelax
    la   gp, __global_pointer$
    .option pop
#ifdef __riscv_flen
    li   t0, 0x6000
    csrs mstatus, t0        /* FPU on */
#endif
    la   t0, __bss_start
    la   t1, __bss_end
1:  bgeu t0, t1, 2f
    sw   zero, 0(t0)
    addi t0, t0, 4
    j    1b
2:  call main
    call board_exit
3:  j    3b
