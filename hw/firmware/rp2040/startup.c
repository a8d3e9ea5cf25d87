/* From reset to main(): copy the image to RAM, clear the rest, and catch what should never happen. */
#include <stdint.h>

#include "board.h"
#include "interrupts.h"
#include "registers.h"

extern uint32_t image_start[], image_end[], image_in_flash[], bss_start[], bss_end[], stack_top[];

int main(void);
void start(void);

typedef void (*handler)(void);

/* What the second boot stage reads: the stack and where to go. */
__attribute__((section(".start_vectors"), used)) static const handler START_VECTORS[2] = {
    (handler)(uintptr_t)stack_top, start};

/* Runs from flash; volatile, or the compiler makes calls of memcpy of them, which is not in RAM yet. */
__attribute__((section(".start"), noreturn)) void start(void)
{
    volatile uint32_t *to = image_start;
    const volatile uint32_t *from = image_in_flash;
    while (to < image_end)
        *to++ = *from++;
    for (to = bss_start; to < bss_end; to++)
        *to = 0;
    REG(SCB_VTOR) = (uint32_t)(uintptr_t)image_start;
    /* A far call: RAM is out of reach of a branch. */
    int (*volatile run)(void) = main;
    run();
    for (;;)
        ;
}

/* A fault of the program: only the watchdog helps, and its reset shows as a new boot id. */
static void stand_still(void)
{
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static const handler VECTORS[16 + 26] = {
    [0] = (handler)(uintptr_t)stack_top,
    [1] = start,
    [2] = stand_still,
    [3] = stand_still,
    [11] = stand_still,
    [14] = stand_still,
    [15] = stand_still,
    [16 + IRQ_TIMER_0] = analog_begin_isr,
    [16 + IRQ_TIMER_1] = uart_sent_isr,
    [16 + IRQ_TIMER_2] = wake_isr,
    [16 + IRQ_USB] = usb_isr,
    [16 + IRQ_DMA_0] = analog_position_isr,
    [16 + IRQ_IO_BANK0] = pins_isr,
    [16 + IRQ_TIMER_3] = i2c_late_isr,
    [16 + IRQ_UART0] = uart_received_isr,
    [16 + IRQ_I2C0] = i2c_done_isr,
};

/* 64 bytes that uf2.py finds by their mark and writes the serial number into. */
__attribute__((section(".identity"), used)) const char IDENTITY[64] = "edgecap serial=\0";
__attribute__((section(".identity"), used)) const char MAGNETS[64] = "edgecap magnets=thumb,index,middle,ring\0";
