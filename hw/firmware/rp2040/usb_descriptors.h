/* What the host is told of the board: USB 2.0 § 9.6, CDC 1.2 and its PSTN subclass. */
#ifndef RP2040_USB_DESCRIPTORS_H
#define RP2040_USB_DESCRIPTORS_H

#include <stdint.h>

#define USB_PACKET 64u
#define USB_NOTICE_ENDPOINT 1u
#define USB_DATA_ENDPOINT 2u
#define USB_NOTICE_PACKET 8u

enum usb_string { STRING_LANGUAGES = 0, STRING_MAKER = 1, STRING_PRODUCT = 2, STRING_SERIAL = 3 };

/* Vendor Raspberry Pi, product "Pico SDK CDC", which hosts know as a plain serial port. */
static const uint8_t DEVICE_DESCRIPTOR[] = {
    18,   1, 0x00, 0x02,          /* USB 2.0 */
    0xEF, 2, 1,                   /* composite, by interface association */
    USB_PACKET,
    0x8A, 0x2E, 0x0A, 0x00,       /* vendor, product */
    0x00, 0x01,                   /* version 1.0 */
    STRING_MAKER, STRING_PRODUCT, STRING_SERIAL,
    1,                            /* configurations */
};

#define CONFIGURATION_BYTES 75u

static const uint8_t CONFIGURATION_DESCRIPTOR[CONFIGURATION_BYTES] = {
    9, 2, CONFIGURATION_BYTES, 0, 2, 1, 0, 0x80, 250,                /* two interfaces, 500 mA from the bus */
    8, 11, 0, 2, 2, 2, 0, 0,                                         /* they belong together: CDC-ACM */
    9, 4, 0, 0, 1, 2, 2, 0, 0,                                       /* interface 0: communication */
    5, 0x24, 0x00, 0x20, 0x01,                                       /* CDC 1.20 */
    5, 0x24, 0x01, 0x00, 1,                                          /* no call management */
    4, 0x24, 0x02, 0x02,                                             /* line coding and state */
    5, 0x24, 0x06, 0, 1,                                             /* union of interfaces 0 and 1 */
    7, 5, 0x80 | USB_NOTICE_ENDPOINT, 3, USB_NOTICE_PACKET, 0, 16,   /* interrupt in */
    9, 4, 1, 0, 2, 10, 0, 0, 0,                                      /* interface 1: data */
    7, 5, USB_DATA_ENDPOINT, 2, USB_PACKET, 0, 0,                    /* bulk out */
    7, 5, 0x80 | USB_DATA_ENDPOINT, 2, USB_PACKET, 0, 0,             /* bulk in */
};

#endif
