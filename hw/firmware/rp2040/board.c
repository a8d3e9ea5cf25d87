#include "board.h"

#include "../sensors/imu.h"
#include "../sensors/mlx90393.h"

#define COUNT_SCALE (1.0f / ANALOG_SUM)
#define COUNT_FULL 4095.0f
/* The middle of a row's conversions comes so much after its time stamp. */
#define ANALOG_LAG_US(positions) (-(int32_t)((positions) * ANALOG_POSITION_US / 2u))
#define TAXEL(n)                                                                                                   \
    {                                                                                                              \
        "taxel-" #n, "count", COUNT_SCALE, COUNT_FULL                                                              \
    }
/* What a count of an inertial sensor means follows from the chip that answers at power-up. */
#define ACCEL(axis)                                                                                                \
    {                                                                                                              \
        "accel-" axis, "m/s^2", 0, 0                                                                               \
    }
#define GYRO(axis)                                                                                                 \
    {                                                                                                              \
        "gyro-" axis, "rad/s", 0, 0                                                                                \
    }
#define MAGNETIC_STREAM(finger)                                                                                     \
    {                                                                                                              \
        .name = "magnetic-" finger, .channels = FIELD, .rate_mhz = 200000, .lag_us = EC_MLX90393_LAG_US,           \
        .kind = EC_MAGNETIC, .dtype = EC_INT16, .n_channels = EC_MLX90393_AXES, .given = true                      \
    }

#define FORCE_STREAM(taxels, positions)                                                                            \
    {                                                                                                              \
        .name = "force", .channels = TAXELS, .rate_mhz = 1000000, .lag_us = ANALOG_LAG_US(positions),              \
        .kind = EC_FORCE, .dtype = EC_INT16, .n_channels = (taxels), .given = true                                 \
    }
#define IMU_STREAM                                                                                                 \
    {                                                                                                              \
        .name = "imu", .channels = AXES, .rate_mhz = EC_IMU_RATE_MHZ, .kind = EC_IMU, .dtype = EC_INT16,           \
        .n_channels = EC_IMU_CHANNELS, .given = true                                                               \
    }

#if defined(BOARD_glove)
/* A glove: 16 force sensors behind a CD74HC4067, an inertial sensor, four MLX90393 in the fingertips. */
static const ec_channel TAXELS[] = {TAXEL(0),  TAXEL(1),  TAXEL(2),  TAXEL(3), TAXEL(4),  TAXEL(5),
                                    TAXEL(6),  TAXEL(7),  TAXEL(8),  TAXEL(9), TAXEL(10), TAXEL(11),
                                    TAXEL(12), TAXEL(13), TAXEL(14), TAXEL(15)};
static const ec_channel AXES[] = {ACCEL("x"), ACCEL("y"), ACCEL("z"), GYRO("x"), GYRO("y"), GYRO("z")};
static const ec_channel FIELD[] = {{"mag-x", "uT", EC_MLX90393_XY_UT, EC_MLX90393_XY_FULL_UT},
                                   {"mag-y", "uT", EC_MLX90393_XY_UT, EC_MLX90393_XY_FULL_UT},
                                   {"mag-z", "uT", EC_MLX90393_Z_UT, EC_MLX90393_Z_FULL_UT}};
static const magnetic_place MAGNETIC[] = {{0x0C, "thumb"}, {0x0D, "index"}, {0x0E, "middle"}, {0x0F, "ring"}};
static const ec_stream STREAMS[] = {
    FORCE_STREAM(16, 16),      IMU_STREAM, MAGNETIC_STREAM("thumb"), MAGNETIC_STREAM("index"),
    MAGNETIC_STREAM("middle"), MAGNETIC_STREAM("ring")};
const board BOARD_HERE = {.name = "glove",
                          .streams = STREAMS,
                          .n_streams = 6,
                          .force = 0,
                          .imu = 1,
                          .analog = {.positions = 16, .inputs = 1},
                          .magnetic = MAGNETIC,
                          .n_magnetic = 4};
#elif defined(BOARD_hand)
/* The glove without magnetometers. */
static const ec_channel TAXELS[] = {TAXEL(0),  TAXEL(1),  TAXEL(2),  TAXEL(3), TAXEL(4),  TAXEL(5),
                                    TAXEL(6),  TAXEL(7),  TAXEL(8),  TAXEL(9), TAXEL(10), TAXEL(11),
                                    TAXEL(12), TAXEL(13), TAXEL(14), TAXEL(15)};
static const ec_channel AXES[] = {ACCEL("x"), ACCEL("y"), ACCEL("z"), GYRO("x"), GYRO("y"), GYRO("z")};
static const ec_stream STREAMS[] = {FORCE_STREAM(16, 16), IMU_STREAM};
const board BOARD_HERE = {.name = "hand",
                          .streams = STREAMS,
                          .n_streams = 2,
                          .force = 0,
                          .imu = 1,
                          .analog = {.positions = 16, .inputs = 1}};
#elif defined(BOARD_force4)
/* Four force sensors straight on the ADC, for boards that bring GPIO29 out. */
static const ec_channel TAXELS[] = {TAXEL(0), TAXEL(1), TAXEL(2), TAXEL(3)};
static const ec_stream STREAMS[] = {FORCE_STREAM(4, 1)};
const board BOARD_HERE = {.name = "force4",
                          .streams = STREAMS,
                          .n_streams = 1,
                          .force = 0,
                          .imu = EC_NO_STREAM,
                          .analog = {.positions = 1, .inputs = 4}};
#elif defined(BOARD_imu)
/* An inertial sensor alone, for a head. */
static const ec_channel AXES[] = {ACCEL("x"), ACCEL("y"), ACCEL("z"), GYRO("x"), GYRO("y"), GYRO("z")};
static const ec_stream STREAMS[] = {IMU_STREAM};
const board BOARD_HERE = {.name = "imu",
                          .streams = STREAMS,
                          .n_streams = 1,
                          .force = EC_NO_STREAM,
                          .imu = 0};
#else
#error "define one of BOARD_glove, BOARD_hand, BOARD_force4, BOARD_imu"
#endif
