#include "line.h"

#include "uart.h"
#include "usb.h"

#define RING 1024u

typedef struct {
    uint32_t t_us;
    uint8_t byte;
} received;

static received ring[RING];
static volatile uint32_t ring_put;
static volatile uint32_t ring_taken;
static volatile uint32_t lost;
static volatile uint32_t sent_us;
static volatile bool sent;

void line_start(const char *serial_number)
{
    uart_start();
    usb_start(serial_number);
}

void line_send(const uint8_t *bytes, size_t n)
{
    if (usb_is_open())
        usb_send(bytes, n);
    else
        uart_send(bytes, n);
}

void line_sent(uint32_t t_us)
{
    sent_us = t_us;
    sent = true;
}

bool line_take_sent(uint32_t *t_us)
{
    if (!sent)
        return false;
    *t_us = sent_us;
    sent = false;
    return true;
}

void line_received(uint8_t byte, uint32_t t_us)
{
    if (ring_put - ring_taken == RING) {
        lost++;
        return;
    }
    ring[ring_put % RING] = (received){t_us, byte};
    ring_put++;
}

void line_broken(void)
{
    lost++;
}

uint32_t line_room(void)
{
    return RING - (ring_put - ring_taken);
}

bool line_take_received(uint8_t *byte, uint32_t *t_us)
{
    if (ring_put == ring_taken)
        return false;
    *byte = ring[ring_taken % RING].byte;
    *t_us = ring[ring_taken % RING].t_us;
    ring_taken++;
    usb_go_on();
    return true;
}

uint32_t line_lost(void)
{
    return lost;
}

bool line_has_news(void)
{
    return sent || ring_put != ring_taken;
}
