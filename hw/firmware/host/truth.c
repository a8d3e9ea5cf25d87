#include "truth.h"

#include "../core/wire.h"

void truth_write(FILE *file, const truth_record *record)
{
    uint8_t bytes[24];
    uint8_t *p = ec_put_u8(bytes, record->stream);
    p = ec_put_u8(p, 0);
    p = ec_put_u16(p, record->boot_no);
    p = ec_put_u32(p, record->index);
    p = ec_put_u32(p, (uint32_t)record->raw_ns);
    p = ec_put_u32(p, (uint32_t)((uint64_t)record->raw_ns >> 32));
    p = ec_put_u32(p, record->t_us);
    ec_put_u32(p, record->run);
    fwrite(bytes, 1, sizeof bytes, file);
}
