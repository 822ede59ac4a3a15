/* Prints number and CRC-32 (zlib's) of frames until it has COUNT of them, or the writer has stopped: one copied, the
 * next one leased, and so on. Says `revoked` for a lease that the writer took back. */
#include "check.h"

#include <inttypes.h>

static uint32_t crc32_of(const uint8_t *bytes, uint64_t count)
{
    static uint32_t table[256];
    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = i;
            for (int bit = 0; bit < 8; bit++)
                table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320u : table[i] >> 1;
        }
    uint32_t crc = 0xFFFFFFFFu;
    for (uint64_t k = 0; k < count; k++)
        crc = crc >> 8 ^ table[(crc ^ bytes[k]) & 0xFF];
    return ~crc;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    struct camring_ring *ring = NULL;
    struct camring_frame_lease *lease = NULL;
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring_info info = {.struct_size = sizeof info};
    static uint8_t buffer[1 << 20];
    uint64_t last = 0, skipped = 0;
    EXPECT(CAMRING_OK, camring_attach(argv[1], 20 * CAMRING_SECOND, NULL, &ring));
    for (long left = atol(argv[2]); left > 0;) {
        int code = camring_wait(ring, 20 * CAMRING_SECOND);
        if (code == CAMRING_ERROR_TIMEOUT)
            break;
        EXPECT(CAMRING_OK, code);
        if (left % 2) {
            EXPECT(CAMRING_OK, camring_next(ring, buffer, sizeof buffer, 20 * CAMRING_SECOND, &frame));
        } else {
            EXPECT(CAMRING_OK, camring_lease(ring, &frame, &lease));
        }
        CHECK(frame.seq > last);
        CHECK(last == 0 ? frame.skipped == 0 : frame.skipped == frame.seq - last - 1);
        last = frame.seq;
        skipped += frame.skipped;
        uint32_t crc = crc32_of(frame.payload, frame.payload_bytes);
        if (left % 2 == 0) {
            code = camring_release(lease);
            if (code == CAMRING_ERROR_REVOKED) {
                printf("revoked %" PRIu64 "\n", frame.seq);
                continue;
            }
            EXPECT(CAMRING_OK, code);
        }
        printf("%" PRIu64 " %08" PRIx32 "\n", frame.seq, crc);
        left--;
    }
    EXPECT(CAMRING_OK, camring_info(ring, &info));
    CHECK(info.skipped == skipped);
    EXPECT(CAMRING_OK, camring_detach(ring));
    return 0;
}
