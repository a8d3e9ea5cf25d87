#include "icm42688.h"

#include <string.h>

#define READ 0x80u

enum {
    DEVICE_CONFIG = 0x11,
    INT_CONFIG = 0x14,
    FIFO_CONFIG = 0x16,
    FIFO_COUNTH = 0x2E,
    FIFO_DATA = 0x30,
    SIGNAL_PATH_RESET = 0x4B,
    INTF_CONFIG0 = 0x4C,
    PWR_MGMT0 = 0x4E,
    GYRO_CONFIG0 = 0x4F,
    ACCEL_CONFIG0 = 0x50,
    GYRO_ACCEL_CONFIG0 = 0x52,
    TMST_CONFIG = 0x54,
    FIFO_CONFIG1 = 0x5F,
    INT_CONFIG1 = 0x64,
    INT_SOURCE0 = 0x65,
    WHO_AM_I = 0x75,
    REG_BANK_SEL = 0x76
};

#define WHO 0x47u
#define SOFT_RESET 0x01u
#define FIFO_FLUSH 0x02u
#define PACKET_BYTES 16u
/* Header of a packet with acceleration, rotation rate and a time stamp of the sample. */
#define HEADER_MASK 0xFCu
#define HEADER 0x68u
#define PACKETS_AT_ONCE 8u
#define BURST_BYTES (1u + PACKETS_AT_ONCE * PACKET_BYTES)

#define RESET_US 2000u      /* the datasheet asks for 1 ms */
#define START_US 50000u     /* gyroscope start-up: 45 ms */
#define RETRY_US 1000000u
#define NO_EDGE_US 100000u  /* without a sample for so long, it is set up anew */
#define READ_EVERY_US 4000u
#define ALIGN_WITHIN_US 300u
#define PERIOD_US 1000u
#define UNEQUAL_READS 3u

/* Register, value: in this order, after a reset. */
static const uint8_t SETUP[][2] = {
    {INT_CONFIG, 0x03},         /* interrupt 1: pulsed, push-pull, active high */
    {INTF_CONFIG0, 0x70},       /* FIFO count in packets, everything big-endian */
    {GYRO_CONFIG0, 0x06},       /* ±2000 °/s, 1 kHz */
    {ACCEL_CONFIG0, 0x06},      /* ±16 g, 1 kHz */
    {GYRO_ACCEL_CONFIG0, 0x11}, /* low-pass at a quarter of the rate */
    {TMST_CONFIG, 0x21},        /* time stamps of 1 us */
    {FIFO_CONFIG1, 0x07},       /* acceleration, rotation rate, temperature */
    {FIFO_CONFIG, 0x40},        /* stream */
    {INT_CONFIG1, 0x00},        /* as the datasheet demands for interrupt 1 */
    {INT_SOURCE0, 0x08},        /* a new sample raises interrupt 1 */
    {PWR_MGMT0, 0x0F},          /* both sensors on, low noise */
};

void ec_icm42688_init(ec_icm42688 *imu, const ec_spi *spi)
{
    memset(imu, 0, sizeof *imu);
    imu->spi = spi;
}

void ec_icm42688_edge(ec_icm42688 *imu, uint32_t t_us)
{
    const uint32_t put = imu->edges_put;
    imu->edges[put % EC_ICM42688_EDGES] = t_us;
    imu->edges_put = put + 1;
}

static void fail(ec_icm42688 *imu, uint64_t now_us, const char *why)
{
    imu->state = EC_ICM_FAULT;
    imu->realigning = false; /* a fault is told of as such; what it did not give has no number */
    imu->fault = why;
    imu->due_us = now_us + RETRY_US;
}

static void go_on(ec_icm42688 *imu, ec_icm_state state, uint64_t due_us)
{
    imu->state = state;
    imu->fault = NULL;
    imu->due_us = due_us;
}

static bool write_register(const ec_icm42688 *imu, uint8_t address, uint8_t value)
{
    const uint8_t out[2] = {address, value};
    return imu->spi->transfer(imu->spi->ctx, out, NULL, sizeof out);
}

static bool read_register(const ec_icm42688 *imu, uint8_t address, uint8_t *value)
{
    const uint8_t out[2] = {(uint8_t)(address | READ), 0};
    uint8_t in[2];
    if (!imu->spi->transfer(imu->spi->ctx, out, in, sizeof out))
        return false;
    *value = in[1];
    return true;
}

static void set_up(ec_icm42688 *imu, uint64_t now_us)
{
    if (!read_register(imu, WHO_AM_I, &imu->who_am_i)) {
        fail(imu, now_us, "SPI does not answer");
        return;
    }
    if (imu->who_am_i != WHO) {
        fail(imu, now_us, imu->who_am_i == 0x00 || imu->who_am_i == 0xFF
                              ? "no sensor: WHO_AM_I reads as an open line"
                              : "another sensor: WHO_AM_I is not that of an ICM-42688-P");
        return;
    }
    for (size_t i = 0; i < sizeof SETUP / sizeof *SETUP; i++) {
        uint8_t read_back = 0;
        if (!write_register(imu, SETUP[i][0], SETUP[i][1]) ||
            !read_register(imu, SETUP[i][0], &read_back) || read_back != SETUP[i][1]) {
            fail(imu, now_us, "the sensor does not keep its settings");
            return;
        }
    }
    go_on(imu, EC_ICM_STARTING, now_us + START_US);
}

/* Extend a 32-bit counter value to the 64-bit one that is nearest below now. */
static uint64_t extend(uint64_t now_us, uint32_t t_us)
{
    return now_us - (uint32_t)((uint32_t)now_us - t_us);
}

/* The FIFO was emptied right after this edge: with it went all samples since the last row. */
static void aligned(ec_icm42688 *imu, uint64_t now_us, uint32_t edge, const ec_icm_sink *sink)
{
    const uint64_t edge_us = extend(now_us, edge);
    if (imu->realigning)
        sink->lost(sink->ctx, imu->last_us + PERIOD_US,
                   (uint32_t)((edge_us - imu->last_us + PERIOD_US / 2) / PERIOD_US));
    imu->realigning = false;
    imu->has_stamp = false;
    imu->unequal = 0;
    imu->last_us = edge_us;
    go_on(imu, EC_ICM_RUNNING, now_us + READ_EVERY_US);
}

static void align(ec_icm42688 *imu, uint64_t now_us, const ec_icm_sink *sink)
{
    const uint32_t put = imu->edges_put;
    const uint32_t edge = imu->edges[(put - 1) % EC_ICM42688_EDGES];
    if (put != imu->edges_taken && (uint32_t)now_us - edge < ALIGN_WITHIN_US) {
        if (!write_register(imu, SIGNAL_PATH_RESET, FIFO_FLUSH)) {
            fail(imu, now_us, "SPI does not answer");
            return;
        }
        if (imu->edges_put == put) {
            imu->edges_taken = put;
            aligned(imu, now_us, edge, sink);
            return;
        }
    }
    if (now_us > imu->patience_us)
        fail(imu, now_us, "the sensor's interrupt is silent: check its INT1 wire");
    else
        imu->due_us = now_us + ALIGN_WITHIN_US / 2;
}

static void begin_aligning(ec_icm42688 *imu, uint64_t now_us)
{
    imu->edges_taken = imu->edges_put;
    imu->patience_us = now_us + NO_EDGE_US;
    go_on(imu, EC_ICM_ALIGNING, now_us);
}

/* The sensor's own stamps must go up by one period, ± half of one. */
static bool follows(ec_icm42688 *imu, const uint8_t *packet)
{
    const uint16_t stamp = (uint16_t)(packet[14] << 8 | packet[15]);
    const uint16_t step = (uint16_t)(stamp - imu->stamp);
    const bool good = !imu->has_stamp || (step > PERIOD_US / 2 && step < PERIOD_US * 3 / 2);
    imu->stamp = stamp;
    imu->has_stamp = true;
    return good;
}

static bool hand_over(ec_icm42688 *imu, uint64_t now_us, const uint8_t *packet, const ec_icm_sink *sink)
{
    if ((packet[0] & HEADER_MASK) != HEADER || !follows(imu, packet))
        return false;
    const uint64_t t_us = extend(now_us, imu->edges[imu->edges_taken % EC_ICM42688_EDGES]);
    imu->edges_taken++;
    uint8_t row[EC_ICM42688_ROW_BYTES];
    for (size_t i = 0; i < sizeof row; i += 2) { /* big-endian there, little-endian on the wire */
        row[i] = packet[1 + i + 1];
        row[i + 1] = packet[1 + i];
    }
    imu->last_us = t_us;
    sink->row(sink->ctx, t_us, row);
    return true;
}

/* Edges and packets do not belong together any more; what that costs is known once they do again. */
static void realign(ec_icm42688 *imu, uint64_t now_us)
{
    imu->realigned++;
    imu->realigning = true;
    begin_aligning(imu, now_us);
}

static void read_fifo(ec_icm42688 *imu, uint64_t now_us, const ec_icm_sink *sink)
{
    const uint8_t ask[3] = {FIFO_COUNTH | READ, 0, 0};
    uint8_t count[3];
    if (!imu->spi->transfer(imu->spi->ctx, ask, count, sizeof ask)) {
        fail(imu, now_us, "SPI does not answer");
        return;
    }
    const uint32_t packets = (uint32_t)(count[1] << 8 | count[2]);
    const uint32_t edges = imu->edges_put - imu->edges_taken;
    /* One may have come between the interrupt and the count. */
    if (edges > EC_ICM42688_EDGES || packets > edges + 1 || edges > packets + 1) {
        realign(imu, now_us);
        return;
    }
    /* The first packet has none before it to be compared with: here the counts must agree, or every row would bear
     * its neighbour's time. If a sample came just now, they will the next time. */
    if (!imu->has_stamp && packets != edges) {
        if (++imu->unequal > UNEQUAL_READS)
            realign(imu, now_us);
        else
            imu->due_us = now_us + ALIGN_WITHIN_US / 2;
        return;
    }
    uint32_t left = packets < edges ? packets : edges;
    while (left > 0) {
        const uint32_t n = left < PACKETS_AT_ONCE ? left : PACKETS_AT_ONCE;
        uint8_t out[BURST_BYTES] = {FIFO_DATA | READ};
        uint8_t in[BURST_BYTES];
        if (!imu->spi->transfer(imu->spi->ctx, out, in, 1 + n * PACKET_BYTES)) {
            fail(imu, now_us, "SPI does not answer");
            return;
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!hand_over(imu, now_us, in + 1 + i * PACKET_BYTES, sink)) {
                realign(imu, now_us);
                return;
            }
        }
        left -= n;
    }
    if (now_us > imu->last_us + NO_EDGE_US)
        fail(imu, now_us, "the sensor gives no samples any more");
    else
        imu->due_us = now_us + READ_EVERY_US;
}

void ec_icm42688_step(ec_icm42688 *imu, uint64_t now_us, const ec_icm_sink *sink)
{
    if (now_us < imu->due_us)
        return;
    switch (imu->state) {
    case EC_ICM_FAULT:
    case EC_ICM_RESET:
        if (write_register(imu, REG_BANK_SEL, 0) && write_register(imu, DEVICE_CONFIG, SOFT_RESET))
            imu->state = EC_ICM_AWAKENING; /* the fault is forgotten once it has come up */
        else
            fail(imu, now_us, "SPI does not answer");
        imu->due_us = now_us + (imu->state == EC_ICM_AWAKENING ? RESET_US : RETRY_US);
        break;
    case EC_ICM_AWAKENING: set_up(imu, now_us); break;
    case EC_ICM_STARTING: begin_aligning(imu, now_us); break;
    case EC_ICM_ALIGNING: align(imu, now_us, sink); break;
    case EC_ICM_RUNNING: read_fifo(imu, now_us, sink); break;
    }
}
