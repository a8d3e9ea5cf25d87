/* Numbers of hw/PROTOCOL.md, protocol version 1. */
#ifndef EC_PROTOCOL_H
#define EC_PROTOCOL_H

#define EC_VERSION 1u

#define EC_HEAD_BYTES 12u
#define EC_CRC_BYTES 4u
#define EC_BODY_MAX 1024u
#define EC_PAYLOAD_MAX (EC_BODY_MAX - EC_HEAD_BYTES - EC_CRC_BYTES)
/* COBS adds at most one byte per 254 and one more; then the delimiter. */
#define EC_WIRE_MAX (EC_BODY_MAX + EC_BODY_MAX / 254u + 1u + 1u)
/* The first frame after power-up also has a delimiter before it. */
#define EC_LINE_MAX (EC_WIRE_MAX + 1u)
#define EC_TEXT_MAX 63u
#define EC_LOG_TEXT_MAX 200u

#define EC_FLAG_HAS_PREV 0x01u

#define EC_MAX_STREAMS 8u
#define EC_MAX_CHANNELS 64u
#define EC_BATCH_MAX 10u
#define EC_BATCH_US 10000u
#define EC_SAMPLES_HEAD_BYTES 12u
#define EC_RATE_MIN_MHZ 100u
#define EC_RATE_MAX_MHZ 10000000u
#define EC_NO_STREAM 0xFFu

enum ec_type {
    EC_HELLO = 0x01,
    EC_SAMPLES = 0x02,
    EC_PONG = 0x03,
    EC_EVENT = 0x04,
    EC_ACK = 0x05,
    EC_LOG = 0x06,
    EC_PING = 0x81,
    EC_COMMAND = 0x82
};

enum ec_kind { EC_IMU = 1, EC_FORCE = 2, EC_TACTILE = 3, EC_MAGNETIC = 4, EC_SCALAR = 5 };

enum ec_dtype { EC_INT16 = 1, EC_INT24 = 2, EC_INT32 = 3, EC_FLOAT32 = 4 };

enum ec_mode { EC_UNIFORM = 0, EC_DELTAS = 1 };

enum ec_event_code {
    EC_BUTTON_DOWN = 1,
    EC_BUTTON_UP = 2,
    EC_OVERRUN = 3,
    EC_SENSOR_FAULT = 4,
    EC_SENSOR_OK = 5,
    EC_LED_ON = 6,
    EC_LED_OFF = 7
};

enum ec_op {
    EC_OP_HELLO = 1,
    EC_OP_START = 2,
    EC_OP_STOP = 3,
    EC_OP_RATE = 4,
    EC_OP_TARE = 5,
    EC_OP_LED = 6,
    EC_OP_RESET = 7
};

enum ec_status { EC_OK = 0, EC_UNKNOWN_OP = 1, EC_BAD_ARGUMENT = 2, EC_FAILED = 3 };

enum ec_level { EC_DEBUG = 10, EC_INFO = 20, EC_WARNING = 30, EC_ERROR = 40 };

#endif
