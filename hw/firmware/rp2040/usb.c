#include "usb.h"

#include <string.h>

#include "gpio.h"
#include "interrupts.h"
#include "line.h"
#include "registers.h"
#include "usb_descriptors.h"

#define IN 0u
#define OUT 1u
#define BULK 2u
#define INTERRUPT 3u
/* Buffers in the dual-port RAM, behind that of endpoint 0. */
#define NOTICE_BUFFER 0x180u
#define DATA_OUT_BUFFER 0x1C0u
#define DATA_IN_BUFFER 0x200u
/* A program on the host gets a packet later than this after the controller has told of it here. */
#define TOLD_LATE_US 20u
#define LINE_CODING_BYTES 7u
#define STRING_MAX 31u
/* The two sides of the dual-port RAM run on different clocks: AVAILABLE follows the rest of a buffer's control word
 * after this many turns (RP2040 datasheet § 4.1.2.5.1: 1 us is plenty). */
#define HAND_OVER_TURNS 12u

enum request {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    SET_INTERFACE = 11,
    SET_LINE_CODING = 0x20,
    GET_LINE_CODING = 0x21,
    SET_CONTROL_LINE_STATE = 0x22,
    SEND_BREAK = 0x23
};
enum descriptor { DEVICE = 1, CONFIGURATION = 2, STRING = 3 };

typedef struct {
    uint8_t type;
    uint8_t request;
    uint16_t value;
    uint16_t index;
    uint16_t length;
} setup_packet;

static const char *serial;
static uint8_t configuration;
static volatile bool open;

/* Endpoint 0. */
static uint8_t answer[CONFIGURATION_BYTES];
static uint32_t answer_bytes;
static uint32_t answered;
static bool answering;
static bool awaiting_coding;
static uint8_t new_address;
static uint8_t line_coding[LINE_CODING_BYTES] = {0x40, 0x42, 0x0F, 0x00, 0, 0, 8}; /* 1,000,000 baud, 8N1 */
static uint32_t pid0;

/* The data endpoint. */
static const uint8_t *sending;
static size_t left;
static bool closing; /* a last, empty packet is due: the transfer's length is a multiple of a packet's */
static volatile bool busy;
static uint32_t armed_us;
static uint32_t pid_in;
static uint32_t pid_out;
static bool waiting; /* the host's next packet waits for room */

/* A word of the dual-port RAM at a time. */
static void copy_in(uint32_t offset, const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t word = 0;
        memcpy(&word, bytes + i, n - i < 4 ? n - i : 4);
        REG(USB_DPRAM + offset + i) = word;
    }
}

static void hand_over(uint32_t endpoint, uint32_t out, uint32_t control)
{
    REG(USB_BUFFER_CONTROL(endpoint, out)) = control;
    for (uint32_t turn = 0; turn < HAND_OVER_TURNS; turn++)
        __asm volatile("nop");
    REG(USB_BUFFER_CONTROL(endpoint, out)) = control | USB_BUFFER_AVAILABLE;
}

/* ── endpoint 0 ──────────────────────────────────────────────────────────────────────────────────────── */

static void answer_on(void)
{
    const uint32_t n = answer_bytes - answered < USB_PACKET ? answer_bytes - answered : USB_PACKET;
    copy_in(USB_EP0_BUFFER, answer + answered, n);
    answered += n;
    hand_over(0, IN, n | USB_BUFFER_FULL | USB_BUFFER_LAST | pid0);
    pid0 ^= USB_BUFFER_DATA1;
}

static void answer_with(const void *bytes, uint32_t n, const setup_packet *setup)
{
    answer_bytes = n < setup->length ? n : setup->length;
    if (n > 0)
        memcpy(answer, bytes, answer_bytes);
    answered = 0;
    answering = true;
    answer_on();
}

static void acknowledge(void)
{
    hand_over(0, IN, USB_BUFFER_FULL | USB_BUFFER_LAST | USB_BUFFER_DATA1);
}

static void refuse(void)
{
    REG(USB_EP_STALL_ARM) = 3u;
    REG(USB_BUFFER_CONTROL(0, IN)) = USB_BUFFER_STALL;
    REG(USB_BUFFER_CONTROL(0, OUT)) = USB_BUFFER_STALL;
}

static void answer_string(const setup_packet *setup)
{
    static const char *const TEXTS[] = {"", "edgecap", "edgecap sensor board"};
    uint8_t bytes[2 + 2 * STRING_MAX];
    const uint8_t number = (uint8_t)setup->value;
    if (number > STRING_SERIAL) {
        refuse();
        return;
    }
    if (number == STRING_LANGUAGES) {
        static const uint8_t ENGLISH[] = {4, STRING, 0x09, 0x04};
        answer_with(ENGLISH, sizeof ENGLISH, setup);
        return;
    }
    const char *text = number == STRING_SERIAL ? serial : TEXTS[number];
    uint32_t n = 0;
    for (; text[n] != 0 && n < STRING_MAX; n++) {
        bytes[2 + 2 * n] = (uint8_t)text[n];
        bytes[3 + 2 * n] = 0;
    }
    bytes[0] = (uint8_t)(2 + 2 * n);
    bytes[1] = STRING;
    answer_with(bytes, bytes[0], setup);
}

static void answer_descriptor(const setup_packet *setup)
{
    switch (setup->value >> 8) {
    case DEVICE: answer_with(DEVICE_DESCRIPTOR, sizeof DEVICE_DESCRIPTOR, setup); break;
    case CONFIGURATION: answer_with(CONFIGURATION_DESCRIPTOR, sizeof CONFIGURATION_DESCRIPTOR, setup); break;
    case STRING: answer_string(setup); break;
    default: refuse(); break;
    }
}

/* ── the data endpoint ───────────────────────────────────────────────────────────────────────────────── */

static void listen(void)
{
    waiting = line_room() < USB_PACKET;
    if (waiting)
        return;
    hand_over(USB_DATA_ENDPOINT, OUT, USB_PACKET | USB_BUFFER_LAST | pid_out);
    pid_out ^= USB_BUFFER_DATA1;
}

static void send_packet(void)
{
    const uint32_t n = left < USB_PACKET ? (uint32_t)left : USB_PACKET;
    copy_in(DATA_IN_BUFFER, sending, n);
    sending += n;
    left -= n;
    closing = left == 0 && n == USB_PACKET;
    armed_us = micros_now();
    hand_over(USB_DATA_ENDPOINT, IN, n | USB_BUFFER_FULL | USB_BUFFER_LAST | pid_in);
    pid_in ^= USB_BUFFER_DATA1;
}

static void end_sending(uint32_t t_us)
{
    if (!busy)
        return;
    busy = false;
    line_sent(t_us);
}

static void packet_sent(void)
{
    if (!busy)
        return;
    if (left > 0 || closing) {
        send_packet();
        return;
    }
    const uint32_t now_us = micros_now();
    end_sending(now_us - armed_us > TOLD_LATE_US ? now_us - TOLD_LATE_US : armed_us);
}

static void packet_received(void)
{
    const uint32_t now_us = micros_now();
    const uint32_t n = REG(USB_BUFFER_CONTROL(USB_DATA_ENDPOINT, OUT)) & USB_BUFFER_LENGTH;
    for (uint32_t i = 0; i < n && i < USB_PACKET; i++)
        line_received((uint8_t)(REG(USB_DPRAM + DATA_OUT_BUFFER + (i & ~3u)) >> 8u * (i & 3u)), now_us);
    listen();
}

static void configure(uint8_t number)
{
    configuration = number;
    pid_in = 0;
    pid_out = 0;
    if (number == 0)
        return;
    REG(USB_EP_CONTROL(USB_NOTICE_ENDPOINT, IN)) =
        USB_EP_ENABLE | USB_EP_INTERRUPT | USB_EP_TYPE(INTERRUPT) | NOTICE_BUFFER;
    REG(USB_EP_CONTROL(USB_DATA_ENDPOINT, IN)) =
        USB_EP_ENABLE | USB_EP_INTERRUPT | USB_EP_TYPE(BULK) | DATA_IN_BUFFER;
    REG(USB_EP_CONTROL(USB_DATA_ENDPOINT, OUT)) =
        USB_EP_ENABLE | USB_EP_INTERRUPT | USB_EP_TYPE(BULK) | DATA_OUT_BUFFER;
    listen();
}

/* Nobody will take what is being sent. */
static void close_port(void)
{
    open = false;
    left = 0;
    closing = false;
    end_sending(micros_now());
}

/* ── what the host asks for ──────────────────────────────────────────────────────────────────────────── */

static void obey_standard(const setup_packet *setup)
{
    static const uint8_t NOTHING[2] = {0, 0};
    switch (setup->request) {
    case GET_DESCRIPTOR: answer_descriptor(setup); break;
    case GET_STATUS: answer_with(NOTHING, 2, setup); break;
    case GET_CONFIGURATION: answer_with(&configuration, 1, setup); break;
    case SET_ADDRESS:
        new_address = (uint8_t)(setup->value & 0x7F);
        acknowledge();
        break;
    case SET_CONFIGURATION:
        configure((uint8_t)setup->value);
        acknowledge();
        break;
    case CLEAR_FEATURE:
        if (setup->index == (0x80 | USB_DATA_ENDPOINT))
            pid_in = 0;
        acknowledge();
        break;
    case SET_INTERFACE: acknowledge(); break;
    default: refuse(); break;
    }
}

static void obey_class(const setup_packet *setup)
{
    switch (setup->request) {
    case SET_LINE_CODING: /* it speaks at the speed of USB, whatever it is told */
        awaiting_coding = true;
        hand_over(0, OUT, USB_PACKET | USB_BUFFER_LAST | USB_BUFFER_DATA1);
        break;
    case GET_LINE_CODING: answer_with(line_coding, LINE_CODING_BYTES, setup); break;
    case SET_CONTROL_LINE_STATE:
        if ((setup->value & 1u) != 0)
            open = configuration != 0;
        else
            close_port();
        acknowledge();
        break;
    case SEND_BREAK: acknowledge(); break;
    default: refuse(); break;
    }
}

static void obey(void)
{
    const uint32_t first = REG(USB_SETUP_PACKET);
    const uint32_t second = REG(USB_SETUP_PACKET + 4u);
    const setup_packet setup = {(uint8_t)first, (uint8_t)(first >> 8), (uint16_t)(first >> 16), (uint16_t)second,
                                (uint16_t)(second >> 16)};
    pid0 = USB_BUFFER_DATA1;
    answering = false;
    awaiting_coding = false;
    switch (setup.type >> 5 & 3u) {
    case 0: obey_standard(&setup); break;
    case 1: obey_class(&setup); break;
    default: refuse(); break;
    }
}

static void answer_taken(void)
{
    if (new_address != 0) {
        REG(USB_ADDR_ENDP) = new_address;
        new_address = 0;
    } else if (answering && answered < answer_bytes) {
        answer_on();
    } else if (answering) {
        answering = false; /* then the host acknowledges with an empty packet */
        hand_over(0, OUT, USB_PACKET | USB_BUFFER_LAST | USB_BUFFER_DATA1);
    }
}

static void control_received(void)
{
    if (!awaiting_coding)
        return;
    awaiting_coding = false;
    for (uint32_t i = 0; i < LINE_CODING_BYTES; i++)
        line_coding[i] = (uint8_t)(REG(USB_DPRAM + USB_EP0_BUFFER + (i & ~3u)) >> 8u * (i & 3u));
    acknowledge();
}

static void reset_bus(void)
{
    close_port();
    configuration = 0;
    new_address = 0;
    answering = false;
    REG(USB_ADDR_ENDP) = 0;
}

static void take_buffers(void)
{
    const uint32_t done = REG(USB_BUFF_STATUS);
    REG(USB_BUFF_STATUS) = done;
    if ((done & 1u << (2u * USB_DATA_ENDPOINT + IN)) != 0)
        packet_sent();
    if ((done & 1u << (2u * USB_DATA_ENDPOINT + OUT)) != 0)
        packet_received();
    if ((done & 1u << IN) != 0)
        answer_taken();
    if ((done & 1u << OUT) != 0)
        control_received();
}

void usb_isr(void)
{
    const uint32_t what = REG(USB_INTS);
    if ((what & USB_INT_BUS_RESET) != 0) {
        reset_bus();
        REG(USB_SIE_STATUS) = USB_SIE_BUS_RESET;
    }
    /* Before the SETUP that may follow them. */
    if ((what & USB_INT_BUFFER) != 0)
        take_buffers();
    if ((what & USB_INT_SETUP) != 0) {
        REG(USB_SIE_STATUS) = USB_SIE_SETUP;
        obey();
    }
}

/* ── from the main loop ──────────────────────────────────────────────────────────────────────────────── */

bool usb_is_open(void)
{
    return open;
}

void usb_send(const uint8_t *bytes, size_t n)
{
    interrupts_off();
    sending = bytes;
    left = n;
    busy = true;
    if (open)
        send_packet();
    else /* it has just been closed: the frame is lost, as on a line without a listener */
        end_sending(micros_now());
    interrupts_on();
}

void usb_go_on(void)
{
    if (!waiting)
        return;
    interrupts_off();
    if (waiting)
        listen();
    interrupts_on();
}

void usb_start(const char *serial_number)
{
    serial = serial_number;
    for (uint32_t at = 0; at < 4096u; at += 4)
        REG(USB_DPRAM + at) = 0;
    REG(USB_MUXING) = 1u << 3 | 1u << 0;                /* to the pins, connected by software */
    REG(USB_PWR) = 1u << 3 | 1u << 2;                   /* as if the bus had power: the pin that tells is not wired */
    REG(USB_MAIN_CTRL) = 1u;
    REG(USB_SIE_CTRL) = USB_SIE_EP0_INTERRUPTS;
    REG(USB_INTE) = USB_INT_BUFFER | USB_INT_BUS_RESET | USB_INT_SETUP;
    interrupt_enable(IRQ_USB, 1);
    REG_SET(USB_SIE_CTRL) = USB_SIE_PULL_UP;
}
