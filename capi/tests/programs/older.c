/* Programs compiled with an older, smaller struct, and with a newer, larger one. */
#include "check.h"

#include <string.h>

/* What an older header might have said. */
struct old_frame {
    uint32_t struct_size;
    uint32_t flags;
    uint64_t seq;
    uint64_t skipped;
    const uint8_t *payload;
    uint64_t payload_bytes;
    uint32_t width, height, pixfmt, plane_count;
    uint32_t plane_offset[4];
    uint32_t plane_stride[4];
    uint32_t guard[4]; /* not part of it: what lies behind */
};

struct new_frame {
    struct camring_frame known;
    uint64_t later;
};

struct new_options {
    struct camring_options known;
    uint64_t later;
};

struct old_options {
    uint32_t struct_size;
    uint32_t owner;
};

static uint8_t buffer[1 << 16];

static void older(const struct camring_ring *ring)
{
    struct old_frame frame;
    memset(&frame, 0x5A, sizeof frame);
    frame.struct_size = offsetof(struct old_frame, guard);
    EXPECT(CAMRING_OK, camring_latest(ring, buffer, sizeof buffer, (struct camring_frame *)(void *)&frame));
    CHECK(frame.struct_size == offsetof(struct old_frame, guard));
    CHECK(frame.seq == 1 && frame.width == 8 && frame.height == 4 && frame.payload == buffer);
    CHECK(frame.plane_stride[0] == 24 && frame.plane_stride[1] == 0);
    for (int i = 0; i < 4; i++)
        CHECK(frame.guard[i] == 0x5A5A5A5A);
    frame.struct_size -= 1;
    EXPECT(CAMRING_ERROR_ARGUMENT, camring_latest(ring, buffer, sizeof buffer, (struct camring_frame *)(void *)&frame));
}

static void newer(const struct camring_ring *ring)
{
    struct new_frame frame;
    memset(&frame, 0x5A, sizeof frame);
    frame.known.struct_size = sizeof frame;
    EXPECT(CAMRING_OK, camring_latest(ring, buffer, sizeof buffer, &frame.known));
    CHECK(frame.known.seq == 1 && frame.known.struct_size == sizeof frame);
    CHECK(frame.later == 0);
}

static void options(void)
{
    struct new_options later = {{sizeof later, 0, 0, 0, NULL}, 0};
    struct old_options early = {sizeof early, CAMRING_OWNER_USUAL};
    struct camring_ring *ring = NULL;
    EXPECT(CAMRING_OK, camring_attach("yard", 0, &later.known, &ring));
    EXPECT(CAMRING_OK, camring_detach(ring));
    later.later = 1;
    EXPECT(CAMRING_ERROR_ARGUMENT, camring_attach("yard", 0, &later.known, &ring));
    puts(camring_strerror(CAMRING_ERROR_ARGUMENT));
    EXPECT(CAMRING_OK, camring_attach("yard", 0, (const struct camring_options *)(const void *)&early, &ring));
    EXPECT(CAMRING_OK, camring_detach(ring));
}

int main(void)
{
    struct camring_ring *ring = NULL;
    CHECK(camring_abi_version() == CAMRING_ABI_VERSION);
    EXPECT(CAMRING_OK, camring_attach("yard", 0, NULL, &ring));
    older(ring);
    newer(ring);
    options();
    EXPECT(CAMRING_OK, camring_detach(ring));
    return 0;
}
