/* UART0 at 1,000,000 baud. Sends by DMA, receives through the FIFO's interrupts; reports to line.h. */
#ifndef RP2040_UART_H
#define RP2040_UART_H

#include <stddef.h>
#include <stdint.h>

#define UART_BAUD 1000000u

void uart_start(void);
void uart_send(const uint8_t *bytes, size_t n);

#endif
