/* Second boot stage. The boot ROM copies the first 256 bytes of flash to the end of SRAM, checks their CRC-32
 * (polynomial 0x04C11DB7, not reflected, initial value 0xFFFFFFFF, no final xor; boot2.py writes it into the last
 * four) and runs them. They let the SSI read the flash in place with the serial read command 03h, which every flash
 * chip knows: 8 bits of instruction, 24 of address, 32 of data (RP2040 datasheet § 2.8.1, § 4.10). The rest of the
 * image is copied to RAM (startup.c), so the plain read costs a few milliseconds at power-up and nothing later. */
    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .section .boot2, "ax"
    .global boot2
    .thumb_func
boot2:
    ldr r0, =0x18000000         /* SSI */
    movs r1, #0
    str r1, [r0, #0x08]         /* SSIENR: off while it is set up */
    movs r1, #4
    str r1, [r0, #0x14]         /* BAUDR: at most 133 / 4 MHz, within what 03h allows */
    ldr r1, =0x001F0300         /* CTRLR0: 32-bit frames, instruction and address out, then data in */
    str r1, [r0]
    movs r1, #0
    str r1, [r0, #0x04]         /* CTRLR1: one frame */
    ldr r1, =0x03000218         /* SPI_CTRLR0: command 03h, 8-bit instruction, 24-bit address, all on one wire */
    ldr r2, =0x180000F4
    str r1, [r2]
    movs r1, #1
    str r1, [r0, #0x08]         /* SSIENR: on */
    mov r0, lr
    cmp r0, #0
    bne 1f                      /* called by a program rather than the boot ROM: return to it */
    ldr r0, =0x10000100         /* the vector table behind this stage */
    ldr r1, =0xE000ED08         /* VTOR */
    str r0, [r1]
    ldmia r0!, {r1, r2}
    msr msp, r1
    bx r2
1:  bx lr
    .pool
