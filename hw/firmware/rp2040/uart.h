/* The line to the host: UART0 at 1,000,000 baud. Sends by DMA, receives through the FIFO's interrupts. */
#ifndef RP2040_UART_H
#define RP2040_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_BAUD 1000000u

void uart_start(void);

/* Begin to send; the bytes must stay until uart_take_sent() says so. */
void uart_send(const uint8_t *bytes, size_t n);

/* True once after each send has ended; `t_us` is a moment at which the last stop bit was not yet over. */
bool uart_take_sent(uint32_t *t_us);

/* The oldest received byte and the counter when it had come; false if there is none. */
bool uart_take_received(uint8_t *byte, uint32_t *t_us);

/* Bytes lost because the main loop did not take them, since power-up. */
uint32_t uart_lost(void);

/* Whether the main loop has something to take. */
bool uart_has_news(void);

#endif
