/* Shared between the files of the core; a board includes device.h only. */
#ifndef EC_INTERNAL_H
#define EC_INTERNAL_H

#include "device.h"

/* Bring now_us up to the counter. */
uint64_t ec_update_now(ec_device *device);

/* Queue an answer or event; counted as lost if there is no room. */
void ec_queue_answer(ec_device *device, uint8_t type, const uint8_t *payload, size_t n);

void ec_send_event(ec_device *device, uint8_t code, uint8_t stream, uint64_t t_us, uint32_t arg,
                   const char *text);

/* Payload bytes of HELLO for stream `part`; with p NULL only measures. */
size_t ec_write_hello(const ec_device *device, uint8_t part, uint8_t *p);
void ec_queue_hello(ec_device *device);

/* Show what the light is to show now, if that has changed. */
void ec_show_light(ec_device *device);

/* Carry out a COMMAND and acknowledge it. */
void ec_obey(ec_device *device, const uint8_t *payload, size_t n);

uint32_t ec_value_bytes(uint8_t dtype);
/* Sample a stream at this rate from the next START on. */
void ec_set_rate(ec_sampler *sampler, uint32_t rate_mhz);
void ec_init_sampler(ec_device *device, uint8_t stream);
/* Report that a sensor gives nothing, since quiet_t_us. */
void ec_tell_fault(ec_device *device, uint8_t stream);

/* Idle: sensors are looked at, so that a dead one is known before the START. */
void ec_begin_looks(ec_device *device);
void ec_look(ec_device *device);
/* Somebody has come who may not know of the faults that stand. */
void ec_tell_again_soon(ec_device *device);
void ec_start(ec_device *device);
/* Take what is due, send partial batches and pending overrun events. */
void ec_stop(ec_device *device);
void ec_take_due(ec_device *device);
/* The extended counter at which a stream next needs ec_poll(). */
uint64_t ec_batch_full_us(const ec_device *device, uint8_t stream);

#endif
