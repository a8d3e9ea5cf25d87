/* Interrupt handlers, by what they do; startup.c puts them into the vector table. */
#ifndef RP2040_INTERRUPTS_H
#define RP2040_INTERRUPTS_H

#include <stdint.h>

void analog_begin_isr(void);    /* timer alarm 0: a row is due */
void analog_position_isr(void); /* DMA: the conversions of one multiplexer position are there */
void uart_sent_isr(void);       /* timer alarm 1: the last byte should be out */
void uart_received_isr(void);
void usb_isr(void);
void wake_isr(void);            /* timer alarm 2: the main loop has something to do */
void i2c_done_isr(void);        /* a transfer has ended */
void i2c_late_isr(void);        /* timer alarm 3: a transfer should have ended */
void pins_isr(void);            /* an edge of the button or of the inertial sensor's interrupt */

static inline void interrupts_off(void)
{
    __asm volatile("cpsid i" ::: "memory");
}

static inline void interrupts_on(void)
{
    __asm volatile("cpsie i" ::: "memory");
}

/* Sleep until an interrupt is pending, also while interrupts are off. */
static inline void sleep_until_interrupt(void)
{
    __asm volatile("dsb\n\twfi" ::: "memory");
}

/* Priority 0 (first) to 3 (last). */
void interrupt_enable(uint32_t irq, uint32_t priority);

#endif
