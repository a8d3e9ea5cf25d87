/* Registers of the RP2040 that this firmware uses: RP2040 datasheet, the register lists of each chapter. */
#ifndef RP2040_REGISTERS_H
#define RP2040_REGISTERS_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))
/* Aliases of every peripheral register that set or clear the written bits at once (§ 2.1.2). */
#define REG_SET(address) REG((address) + 0x2000u)
#define REG_CLEAR(address) REG((address) + 0x3000u)

/* § 2.14 resets */
#define RESETS_RESET 0x4000C000u
#define RESETS_DONE 0x4000C008u
#define RESET_ADC (1u << 0)
#define RESET_DMA (1u << 2)
#define RESET_I2C0 (1u << 3)
#define RESET_IO_BANK0 (1u << 5)
#define RESET_PADS_BANK0 (1u << 8)
#define RESET_PLL_SYS (1u << 12)
#define RESET_PLL_USB (1u << 13)
#define RESET_PWM (1u << 14)
#define RESET_SPI0 (1u << 16)
#define RESET_TIMER (1u << 21)
#define RESET_UART0 (1u << 22)
#define RESET_USB (1u << 24)

/* § 2.13 power-on state machine: what the watchdog resets */
#define PSM_WDSEL 0x40010008u

/* § 2.15 clocks */
#define CLK_REF_CTRL 0x40008030u
#define CLK_REF_DIV 0x40008034u
#define CLK_REF_SELECTED 0x40008038u
#define CLK_SYS_CTRL 0x4000803Cu
#define CLK_SYS_DIV 0x40008040u
#define CLK_SYS_SELECTED 0x40008044u
#define CLK_PERI_CTRL 0x40008048u
#define CLK_USB_CTRL 0x40008054u
#define CLK_ADC_CTRL 0x40008060u
#define CLK_ENABLE (1u << 11)

/* § 2.16 crystal, § 2.17 ring oscillator, § 2.18 PLLs */
#define XOSC_CTRL 0x40024000u
#define XOSC_STATUS 0x40024004u
#define XOSC_STARTUP 0x4002400Cu
#define ROSC_RANDOMBIT 0x4006001Cu
#define PLL_SYS 0x40028000u
#define PLL_USB 0x4002C000u
#define PLL_CS(pll) ((pll) + 0x0u)
#define PLL_PWR(pll) ((pll) + 0x4u)
#define PLL_FBDIV(pll) ((pll) + 0x8u)
#define PLL_PRIM(pll) ((pll) + 0xCu)

/* § 2.19 GPIO */
#define GPIO_CTRL(pin) (0x40014004u + 8u * (pin))
#define GPIO_INTR(pin) (0x400140F0u + 4u * ((pin) / 8u))
#define GPIO_INTE(pin) (0x40014100u + 4u * ((pin) / 8u))
#define GPIO_EDGE_LOW(pin) (1u << (4u * ((pin) % 8u) + 2u))
#define GPIO_EDGE_HIGH(pin) (1u << (4u * ((pin) % 8u) + 3u))
#define PAD(pin) (0x4001C004u + 4u * (pin))
#define PAD_OUTPUT_DISABLE (1u << 7)
#define PAD_INPUT_ENABLE (1u << 6)
#define PAD_PULL_UP (1u << 3)
#define PAD_PULL_DOWN (1u << 2)
#define PAD_SCHMITT (1u << 1)
#define PAD_4MA (1u << 4)
enum gpio_function { GPIO_SPI = 1, GPIO_UART = 2, GPIO_I2C = 3, GPIO_PWM = 4, GPIO_SIO = 5, GPIO_NONE = 31 };

/* § 2.3.1 single-cycle IO */
#define SIO_GPIO_IN 0xD0000004u
#define SIO_GPIO_OUT_SET 0xD0000014u
#define SIO_GPIO_OUT_CLR 0xD0000018u
#define SIO_GPIO_OE_SET 0xD0000024u
#define SIO_GPIO_OE_CLR 0xD0000028u

/* § 2.5 DMA */
#define DMA_READ(channel) (0x50000000u + 0x40u * (channel))
#define DMA_WRITE(channel) (0x50000004u + 0x40u * (channel))
#define DMA_COUNT(channel) (0x50000008u + 0x40u * (channel))
#define DMA_CTRL(channel) (0x5000000Cu + 0x40u * (channel))
#define DMA_INTE0 0x50000404u
#define DMA_INTS0 0x5000040Cu
#define DMA_ENABLE (1u << 0)
#define DMA_SIZE_8 (0u << 2)
#define DMA_SIZE_16 (1u << 2)
#define DMA_INCR_READ (1u << 4)
#define DMA_INCR_WRITE (1u << 5)
#define DMA_CHAIN_TO(channel) ((channel) << 11)
#define DMA_REQUEST(dreq) ((dreq) << 15)
#define DMA_QUIET (1u << 21)
#define DREQ_UART0_TX 20u
#define DREQ_ADC 36u

/* § 4.1 USB: dual-port RAM and controller, as a device */
#define USB_DPRAM 0x50100000u
#define USB_SETUP_PACKET USB_DPRAM
#define USB_EP_CONTROL(endpoint, out) (USB_DPRAM + 8u * (endpoint) + 4u * (out))
#define USB_BUFFER_CONTROL(endpoint, out) (USB_DPRAM + 0x80u + 8u * (endpoint) + 4u * (out))
#define USB_EP0_BUFFER 0x100u /* offset in the dual-port RAM */
#define USB_ADDR_ENDP 0x50110000u
#define USB_MAIN_CTRL 0x50110040u
#define USB_SIE_CTRL 0x5011004Cu
#define USB_SIE_STATUS 0x50110050u
#define USB_BUFF_STATUS 0x50110058u
#define USB_EP_STALL_ARM 0x50110068u
#define USB_MUXING 0x50110074u
#define USB_PWR 0x50110078u
#define USB_INTE 0x50110090u
#define USB_INTS 0x50110098u
#define USB_SIE_EP0_INTERRUPTS (1u << 29)
#define USB_SIE_PULL_UP (1u << 16)
#define USB_SIE_SETUP (1u << 17)
#define USB_SIE_BUS_RESET (1u << 19)
#define USB_INT_BUFFER (1u << 4)
#define USB_INT_BUS_RESET (1u << 12)
#define USB_INT_SETUP (1u << 16)
#define USB_EP_ENABLE (1u << 31)
#define USB_EP_INTERRUPT (1u << 29)
#define USB_EP_TYPE(type) ((type) << 26)
#define USB_BUFFER_LENGTH 0x3FFu
#define USB_BUFFER_AVAILABLE (1u << 10)
#define USB_BUFFER_STALL (1u << 11)
#define USB_BUFFER_DATA1 (1u << 13)
#define USB_BUFFER_LAST (1u << 14)
#define USB_BUFFER_FULL (1u << 15)

/* § 4.2 UART (PL011) */
#define UART_DR 0x40034000u
#define UART_FR 0x40034018u
#define UART_IBRD 0x40034024u
#define UART_FBRD 0x40034028u
#define UART_LCR_H 0x4003402Cu
#define UART_CR 0x40034030u
#define UART_IFLS 0x40034034u
#define UART_IMSC 0x40034038u
#define UART_MIS 0x40034040u
#define UART_ICR 0x40034044u
#define UART_DMACR 0x40034048u
#define UART_FR_BUSY (1u << 3)
#define UART_FR_RXFE (1u << 4)
#define UART_INT_RX (1u << 4)
#define UART_INT_RX_TIMEOUT (1u << 6)

/* § 4.3 I2C (DW_apb_i2c) */
#define I2C_CON 0x40044000u
#define I2C_TAR 0x40044004u
#define I2C_DATA_CMD 0x40044010u
#define I2C_FS_HCNT 0x4004401Cu
#define I2C_FS_LCNT 0x40044020u
#define I2C_INTR_MASK 0x40044030u
#define I2C_RAW_INTR_STAT 0x40044034u
#define I2C_CLR_TX_ABRT 0x40044054u
#define I2C_CLR_STOP_DET 0x40044060u
#define I2C_ENABLE 0x4004406Cu
#define I2C_STATUS 0x40044070u
#define I2C_RXFLR 0x40044078u
#define I2C_SDA_HOLD 0x4004407Cu
#define I2C_TX_ABRT_SOURCE 0x40044080u
#define I2C_ENABLE_STATUS 0x4004409Cu
#define I2C_FS_SPKLEN 0x400440A0u
#define I2C_INTR_TX_ABRT (1u << 6)
#define I2C_INTR_STOP_DET (1u << 9)

/* § 4.4 SPI (PL022) */
#define SPI_CR0 0x4003C000u
#define SPI_CR1 0x4003C004u
#define SPI_DR 0x4003C008u
#define SPI_SR 0x4003C00Cu
#define SPI_CPSR 0x4003C010u
#define SPI_SR_TNF (1u << 1)
#define SPI_SR_RNE (1u << 2)

/* § 4.5 PWM: slice = pin / 2 mod 8, channel A for even pins */
#define PWM_CSR(slice) (0x40050000u + 0x14u * (slice))
#define PWM_DIV(slice) (0x40050004u + 0x14u * (slice))
#define PWM_CC(slice) (0x4005000Cu + 0x14u * (slice))
#define PWM_TOP(slice) (0x40050010u + 0x14u * (slice))

/* § 4.6 timer */
#define TIMER_ALARM(n) (0x40054010u + 4u * (n))
#define TIMER_ARMED 0x40054020u
#define TIMER_RAWL 0x40054028u
#define TIMER_INTR 0x40054034u
#define TIMER_INTE 0x40054038u

/* § 4.7 watchdog */
#define WATCHDOG_CTRL 0x40058000u
#define WATCHDOG_LOAD 0x40058004u
#define WATCHDOG_TICK 0x4005802Cu
#define WATCHDOG_TRIGGER (1u << 31)
#define WATCHDOG_ENABLE (1u << 30)

/* § 4.9 ADC */
#define ADC_CS 0x4004C000u
#define ADC_FCS 0x4004C008u
#define ADC_FIFO 0x4004C00Cu
#define ADC_DIV 0x4004C010u
#define ADC_CS_EN (1u << 0)
#define ADC_CS_START_MANY (1u << 3)
#define ADC_CS_READY (1u << 8)
#define ADC_CS_AINSEL(input) ((input) << 12)
#define ADC_CS_RROBIN(inputs) ((inputs) << 16)
#define ADC_FCS_EN (1u << 0)
#define ADC_FCS_DREQ_EN (1u << 3)
#define ADC_FCS_EMPTY (1u << 8)
#define ADC_FCS_THRESH(n) ((n) << 24)

/* § 4.10 flash interface, and the pad of its chip select */
#define SSI_CTRLR0 0x18000000u
#define SSI_CTRLR1 0x18000004u
#define SSI_SSIENR 0x18000008u
#define SSI_BAUDR 0x18000014u
#define SSI_RXFLR 0x18000024u
#define SSI_SR 0x18000028u
#define SSI_DR0 0x18000060u
#define SSI_SPI_CTRLR0 0x180000F4u
#define SSI_SR_BUSY (1u << 0)
#define SSI_SR_TFE (1u << 2)
#define QSPI_SS_CTRL 0x4001800Cu

/* Armv6-M: interrupt controller, vector table */
#define NVIC_ENABLE 0xE000E100u
#define NVIC_PRIORITY(n) (0xE000E400u + 4u * (n))
#define SCB_VTOR 0xE000ED08u
enum irq {
    IRQ_TIMER_0 = 0,
    IRQ_TIMER_1 = 1,
    IRQ_TIMER_2 = 2,
    IRQ_TIMER_3 = 3,
    IRQ_USB = 5,
    IRQ_DMA_0 = 11,
    IRQ_IO_BANK0 = 13,
    IRQ_UART0 = 20,
    IRQ_I2C0 = 23
};

#endif
