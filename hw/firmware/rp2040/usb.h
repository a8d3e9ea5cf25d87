/* USB as a serial port (CDC-ACM); reports to line.h. */
#ifndef RP2040_USB_H
#define RP2040_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void usb_start(const char *serial_number);

/* Whether a program on the host has the port open (DTR). */
bool usb_is_open(void);

void usb_send(const uint8_t *bytes, size_t n);

/* The main loop has taken bytes: more may come. */
void usb_go_on(void);

#endif
