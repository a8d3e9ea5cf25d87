/* A seeded model of a moving, grasping hand; a function of the row number alone, so runs repeat exactly. */
#ifndef HOST_MODEL_H
#define HOST_MODEL_H

#include <stdint.h>

#include "../core/device.h"

/* Values of row `index`, in the stream's units:
 *   imu: acceleration with gravity (3, m/s^2), angular rate (3, rad/s), magnetic field (3, uT);
 *   force: grasps of 1.5 to 2.5 s, 0 to 12 N; tactile: the same, signed, about 300 units;
 *   magnetic, scalar: slow sines.
 * Streams of one device and seed share one motion. */
void model_row(const ec_stream *stream, uint64_t seed, uint64_t index, double *values);

#endif
