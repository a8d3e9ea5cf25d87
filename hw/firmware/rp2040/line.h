/* The line to the host: USB while a program has the USB port open, the UART otherwise. */
#ifndef RP2040_LINE_H
#define RP2040_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void line_start(const char *serial_number);

/* Begin to send; the bytes must stay until line_take_sent() says so. */
void line_send(const uint8_t *bytes, size_t n);

/* True once after each send has ended; `t_us` is a moment at which the host could not have the last byte yet. */
bool line_take_sent(uint32_t *t_us);

/* The oldest received byte and the counter when it had come; false if there is none. */
bool line_take_received(uint8_t *byte, uint32_t *t_us);

/* Bytes lost because the main loop did not take them, or broken on the wire, since power-up. */
uint32_t line_lost(void);

/* Whether the main loop has something to take. */
bool line_has_news(void);

/* ── from the interrupts of the two lines, which do not interrupt one another ── */

void line_sent(uint32_t t_us);
void line_received(uint8_t byte, uint32_t t_us);
void line_broken(void);
/* Bytes that may come before any is lost. */
uint32_t line_room(void);

#endif
