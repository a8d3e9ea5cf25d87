#include "identity.h"

#include <string.h>

#include "board.h"
#include "gpio.h"
#include "interrupts.h"
#include "registers.h"

/* Flash command 4Bh: 4 bytes of nothing, then 8 bytes that no other chip has. */
#define READ_UNIQUE_ID 0x4Bu
#define DUMMY_BYTES 4u
#define ID_BYTES 8u
#define ONE_WIRE_8_BITS (7u << 16)
#define OUTPUT_LOW (2u << 8) /* GPIO_CTRL.OUTOVER */
#define OUTPUT_HIGH (3u << 8)
#define OVERRIDE_MASK (3u << 8)
#define SPINS 10000u
#define BITS_PER_BIT 64u

static char serial[EC_TEXT_MAX + 1];

static uint8_t exchange(uint8_t byte)
{
    REG(SSI_DR0) = byte;
    for (uint32_t spins = 0; REG(SSI_RXFLR) == 0 && spins < SPINS; spins++)
        ;
    return (uint8_t)REG(SSI_DR0);
}

/* All code runs from RAM, so the flash may be spoken to directly; reading it in place is restored afterwards. */
static void read_flash_id(uint8_t id[ID_BYTES])
{
    interrupts_off();
    const uint32_t ctrlr0 = REG(SSI_CTRLR0);
    const uint32_t spi_ctrlr0 = REG(SSI_SPI_CTRLR0);
    const uint32_t select = REG(QSPI_SS_CTRL) & ~OVERRIDE_MASK;
    REG(SSI_SSIENR) = 0;
    REG(SSI_CTRLR0) = ONE_WIRE_8_BITS;
    REG(SSI_SSIENR) = 1;
    REG(QSPI_SS_CTRL) = select | OUTPUT_LOW;
    (void)exchange(READ_UNIQUE_ID);
    for (uint32_t i = 0; i < DUMMY_BYTES; i++)
        (void)exchange(0);
    for (uint32_t i = 0; i < ID_BYTES; i++)
        id[i] = exchange(0);
    REG(QSPI_SS_CTRL) = select | OUTPUT_HIGH;
    REG(SSI_SSIENR) = 0;
    REG(SSI_CTRLR0) = ctrlr0;
    REG(SSI_SPI_CTRLR0) = spi_ctrlr0;
    REG(SSI_SSIENR) = 1;
    REG(QSPI_SS_CTRL) = select;
    interrupts_on();
}

const char *identity_serial(void)
{
    static const char MARK[] = "serial=";
    static const char PREFIX[] = "rp2040-";
    static const char HEX[] = "0123456789abcdef";
    const char *written = strstr(IDENTITY, MARK) + sizeof MARK - 1;
    if (*written != 0) {
        strncpy(serial, written, sizeof serial - 1);
        return serial;
    }
    uint8_t id[ID_BYTES];
    read_flash_id(id);
    char *p = serial;
    memcpy(p, PREFIX, sizeof PREFIX - 1);
    p += sizeof PREFIX - 1;
    for (uint32_t i = 0; i < ID_BYTES; i++) {
        *p++ = HEX[id[i] >> 4];
        *p++ = HEX[id[i] & 15u];
    }
    *p = 0;
    return serial;
}

bool identity_has_magnet(const char *finger)
{
    static const char MARK[] = "magnets=";
    const size_t n = strlen(finger);
    const char *p = strstr(MAGNETS, MARK) + sizeof MARK - 1;
    for (;;) {
        const size_t word = strcspn(p, ",");
        if (word == n && memcmp(p, finger, n) == 0)
            return true;
        if (p[word] == 0)
            return false;
        p += word + 1;
    }
}

uint32_t identity_boot_id(void)
{
    /* Successive bits depend on one another (RP2040 datasheet § 2.17.5): many go into each bit of the result, at a
     * pace that is not the oscillator's. */
    uint32_t id = micros_now();
    for (uint32_t i = 0; i < 32u * BITS_PER_BIT; i++) {
        const uint32_t bit = REG(ROSC_RANDOMBIT) & 1u;
        id = (id << 5 | id >> 27) ^ (bit + (id & 7u));
        id *= 0x9E3779B1u;
    }
    return id;
}
