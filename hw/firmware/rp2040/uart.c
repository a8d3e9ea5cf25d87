#include "uart.h"

#include "alarm.h"
#include "clocks.h"
#include "gpio.h"
#include "interrupts.h"
#include "line.h"
#include "pins.h"
#include "registers.h"
#include "usb.h"

#define TX_DMA 1u
#define BYTE_US (10u * 1000000u / UART_BAUD)
/* The receive time-out comes this many bit times after the last byte (PL011, UARTRTINTR). A bit less is taken off,
 * so that no stamp lies before the byte. */
#define RX_TIMEOUT_US 30u
/* If the last byte is not out when it should be, look again so much later. */
#define AGAIN_US 2u
#define BREAK_ERRORS 0xF00u

static volatile uint32_t sent_us;

void uart_start(void)
{
    gpio_connect(PIN_UART_TX, GPIO_UART, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_4MA);
    gpio_connect(PIN_UART_RX, GPIO_UART, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_PULL_UP | PAD_4MA);
    /* 125 MHz / (16 × 7.8125) is 1 MHz exactly: 7 and 52/64. */
    const uint32_t divisor_64 = SYSTEM_HZ * 4u / UART_BAUD;
    REG(UART_IBRD) = divisor_64 >> 6;
    REG(UART_FBRD) = divisor_64 & 63u;
    REG(UART_LCR_H) = 3u << 5 | 1u << 4;                  /* 8 bits, FIFOs */
    REG(UART_IFLS) = 0;                                   /* receive at 4 bytes */
    REG(UART_DMACR) = 1u << 1;                            /* transmit by DMA */
    REG(UART_CR) = 1u << 9 | 1u << 8 | 1u << 0;           /* receiver, transmitter, on */
    REG(UART_IMSC) = UART_INT_RX | UART_INT_RX_TIMEOUT;
    interrupt_enable(IRQ_UART0, 1);
    REG_SET(TIMER_INTE) = 1u << 1;
    interrupt_enable(IRQ_TIMER_1, 1);
}


void uart_send(const uint8_t *bytes, size_t n)
{
    const uint32_t begun_us = micros_now();
    /* n bytes cannot be over sooner; the receiver has the last of them half a bit before its stop bit ends. */
    sent_us = begun_us + (uint32_t)n * BYTE_US - 1u;
    REG(DMA_READ(TX_DMA)) = (uint32_t)(uintptr_t)bytes;
    REG(DMA_WRITE(TX_DMA)) = UART_DR;
    REG(DMA_COUNT(TX_DMA)) = (uint32_t)n;
    REG(DMA_CTRL(TX_DMA)) = DMA_ENABLE | DMA_SIZE_8 | DMA_INCR_READ | DMA_REQUEST(DREQ_UART0_TX) |
                            DMA_CHAIN_TO(TX_DMA) | DMA_QUIET;
    alarm_at(1, begun_us + (uint32_t)n * BYTE_US + 1u);
}

void uart_sent_isr(void)
{
    REG(TIMER_INTR) = 1u << 1;
    const uint32_t now_us = micros_now();
    if ((REG(UART_FR) & UART_FR_BUSY) != 0) {
        sent_us = now_us - 1u; /* it was still sending then: this is before the end */
        alarm_at(1, now_us + AGAIN_US);
        return;
    }
    line_sent(sent_us);
}

void uart_received_isr(void)
{
    const bool timed_out = (REG(UART_MIS) & UART_INT_RX_TIMEOUT) != 0;
    REG(UART_ICR) = UART_INT_RX | UART_INT_RX_TIMEOUT;
    const uint32_t now_us = micros_now();
    const uint32_t t_us = timed_out ? now_us - RX_TIMEOUT_US : now_us;
    while ((REG(UART_FR) & UART_FR_RXFE) == 0) {
        const uint32_t data = REG(UART_DR);
        if ((data & BREAK_ERRORS) != 0)
            line_broken();
        else if (!usb_is_open()) /* one host at a time */
            line_received((uint8_t)data, t_us);
    }
}
