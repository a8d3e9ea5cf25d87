#include "clocks.h"

#include "registers.h"

#define CRYSTAL_MHZ 12u
#define XOSC_RANGE_1_15_MHZ 0xAA0u
#define XOSC_ENABLE (0xFABu << 12)
#define STABLE (1u << 31)
/* 8 ms in units of 256 crystal periods: several times what the Pico's crystal needs. */
#define XOSC_STARTUP_DELAY 376u
#define PLL_LOCK (1u << 31)
#define PLL_PD (1u << 0)
#define PLL_POSTDIVPD (1u << 3)
#define PLL_VCOPD (1u << 5)
#define FROM_XOSC 2u
#define FROM_AUX 1u

static void wait_for(uint32_t address, uint32_t bits)
{
    while ((REG(address) & bits) != bits)
        ;
}

void unreset(uint32_t bits)
{
    REG_CLEAR(RESETS_RESET) = bits;
    wait_for(RESETS_DONE, bits);
}

/* 12 MHz × fbdiv within 750 to 1600 MHz, divided twice (§ 2.18.2). */
static void start_pll(uint32_t pll, uint32_t fbdiv, uint32_t post1, uint32_t post2)
{
    REG(PLL_CS(pll)) = 1;
    REG(PLL_FBDIV(pll)) = fbdiv;
    REG_CLEAR(PLL_PWR(pll)) = PLL_PD | PLL_VCOPD;
    wait_for(PLL_CS(pll), PLL_LOCK);
    REG(PLL_PRIM(pll)) = post1 << 16 | post2 << 12;
    REG_CLEAR(PLL_PWR(pll)) = PLL_POSTDIVPD;
}

void clocks_start(void)
{
    /* Onto the ring oscillator first: a reset by the watchdog may find any clock running. */
    REG_CLEAR(CLK_SYS_CTRL) = 1u;
    wait_for(CLK_SYS_SELECTED, 1u);
    REG_CLEAR(CLK_REF_CTRL) = 3u;
    wait_for(CLK_REF_SELECTED, 1u);
    REG(XOSC_STARTUP) = XOSC_STARTUP_DELAY;
    REG(XOSC_CTRL) = XOSC_RANGE_1_15_MHZ | XOSC_ENABLE;
    wait_for(XOSC_STATUS, STABLE);
    REG_SET(RESETS_RESET) = RESET_PLL_SYS | RESET_PLL_USB;
    unreset(RESET_PLL_SYS | RESET_PLL_USB);
    start_pll(PLL_SYS, 125, 6, 2); /* 1500 / 12 = 125 MHz */
    start_pll(PLL_USB, 100, 5, 5); /* 1200 / 25 = 48 MHz */
    REG(CLK_REF_DIV) = 1u << 8;
    REG(CLK_REF_CTRL) = FROM_XOSC;
    wait_for(CLK_REF_SELECTED, 1u << FROM_XOSC);
    REG(CLK_SYS_DIV) = 1u << 8;
    REG(CLK_SYS_CTRL) = 0; /* auxiliary source: PLL_SYS */
    REG(CLK_SYS_CTRL) = FROM_AUX;
    wait_for(CLK_SYS_SELECTED, 1u << FROM_AUX);
    REG(CLK_PERI_CTRL) = CLK_ENABLE; /* from clk_sys */
    REG(CLK_ADC_CTRL) = CLK_ENABLE;  /* from PLL_USB */
    REG(CLK_USB_CTRL) = CLK_ENABLE;
    REG(WATCHDOG_TICK) = 1u << 9 | CRYSTAL_MHZ;
}
