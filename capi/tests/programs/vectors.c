/* Attaches to the ring camring.yard and prints everything that the library says about it, one key=value per line. */
#include "check.h"

#include <inttypes.h>
#include <string.h>

static void number(const char *key, uint64_t value)
{
    printf("%s=%" PRIu64 "\n", key, value);
}

static void time_of(const char *key, int64_t value)
{
    printf("%s=%" PRId64 "\n", key, value);
}

static void four(const char *key, const uint32_t *values)
{
    printf("%s=[%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 "]\n", key, values[0], values[1], values[2], values[3]);
}

/* Rows and bytes of a row of a plane, by the format alone. */
static void extent(const struct camring_frame *f, uint32_t plane, uint64_t *row_bytes, uint64_t *rows)
{
    uint64_t w = f->width, half = (w + 1) / 2;
    *rows = f->height;
    switch (f->pixfmt) {
    case CAMRING_PIXFMT_BGR:
    case CAMRING_PIXFMT_RGB:
        *row_bytes = w * 3;
        break;
    case CAMRING_PIXFMT_GRAY:
        *row_bytes = w;
        break;
    case CAMRING_PIXFMT_I420:
    case CAMRING_PIXFMT_NV12:
        *row_bytes = plane == 0 ? w : f->pixfmt == CAMRING_PIXFMT_I420 ? half : half * 2;
        if (plane > 0)
            *rows = ((uint64_t)f->height + 1) / 2;
        break;
    case CAMRING_PIXFMT_OPAQUE:
        *row_bytes = *rows = 0;
        break;
    default:
        *row_bytes = w * 4;
    }
}

static void planes(const struct camring_frame *f)
{
    for (uint32_t plane = 0; plane < f->plane_count; plane++) {
        uint64_t row_bytes, rows;
        extent(f, plane, &row_bytes, &rows);
        if (rows == 0)
            return;
        printf("latest.planes.%" PRIu32 "=%" PRIu64 " x %" PRIu64 " ", plane, row_bytes, rows);
        const uint8_t *last = f->payload + f->plane_offset[plane] + f->plane_stride[plane] * (rows - 1);
        for (uint64_t k = 0; k < row_bytes; k++)
            printf("%02x", last[k]);
        printf("\n");
    }
}

static void describe(const struct camring_frame *f)
{
    number("latest.seq", f->seq);
    number("latest.width", f->width);
    number("latest.height", f->height);
    number("latest.pixfmt", f->pixfmt);
    number("latest.flags", f->flags);
    number("latest.payload_len", f->payload_bytes);
    number("latest.plane_count", f->plane_count);
    four("latest.plane_off", f->plane_offset);
    four("latest.plane_stride", f->plane_stride);
    planes(f);
    number("latest.geometry_epoch", f->geometry_epoch);
    number("latest.writer_epoch", f->writer_epoch);
    number("latest.session_id", f->session_id);
    number("latest.rtp_timestamp", f->rtp_timestamp);
    time_of("latest.pts_ns", f->pts_ns);
    time_of("latest.duration_ns", f->duration_ns);
    time_of("latest.arrival_mono_ns", f->arrival_mono_ns);
    time_of("latest.arrival_real_ns", f->arrival_real_ns);
    if (f->source_unix_ns == CAMRING_NO_TIME)
        printf("latest.source_unix_ns=null\n");
    else
        time_of("latest.source_unix_ns", f->source_unix_ns);
    time_of("latest.decoded_mono_ns", f->decoded_mono_ns);
    time_of("latest.publish_mono_ns", f->publish_mono_ns);
    time_of("latest.publish_real_ns", f->publish_real_ns);
    time_of("latest.boot_minus_mono_ns", f->boot_minus_mono_ns);
    number("latest.lag_ns", f->lag_ns);
    number("latest.source_seq", f->source_seq);
    number("latest.dropped_before", f->dropped_before);
    number("latest.gap", f->gap);
    number("latest.payload_crc32c", f->payload_crc32c);
    number("latest.time_source", f->time_source);
    number("latest.source_pixfmt", f->source_pixfmt);
    number("latest.rotation", f->rotation);
    number("latest.fit", f->fit);
    printf("latest.color=[%d,%d,%d,%d]\n", f->color_primaries, f->color_transfer, f->color_matrix, f->color_full_range);
    printf("latest.pad_color=[%d,%d,%d,%d]\n", f->pad_color[0], f->pad_color[1], f->pad_color[2], f->pad_color[3]);
    printf("latest.pixel_aspect=[%d,%d]\n", f->pixel_aspect_width, f->pixel_aspect_height);
    printf("latest.source_size=[%" PRIu32 ",%" PRIu32 "]\n", f->source_width, f->source_height);
    printf("latest.scale=[%.9g,%.9g]\n", (double)f->scale_x, (double)f->scale_y);
    printf("latest.offset=[%.9g,%.9g]\n", (double)f->offset_x, (double)f->offset_y);
    printf("latest.value_scale=%.9g\n", (double)f->value_scale);
    printf("latest.value_offset=%.9g\n", (double)f->value_offset);
}

static void latest(const struct camring_ring *ring)
{
    struct camring_frame frame = {.struct_size = sizeof frame};
    static uint8_t buffer[1 << 20];
    int code = camring_latest(ring, buffer, sizeof buffer, &frame);
    printf("latest=%d\nlatest.text=%s\n", code, camring_strerror(code));
    if (code == CAMRING_OK) {
        printf("latest.whole=%d\n", is_whole(&frame));
        describe(&frame);
    }
}

static void lease(const struct camring_ring *ring)
{
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_frame_lease *held = NULL;
    int code = camring_lease(ring, &frame, &held);
    printf("lease=%d\nlease.text=%s\n", code, camring_strerror(code));
    if (code != CAMRING_OK)
        return;
    number("lease.seq", frame.seq);
    printf("lease.guarded=%s\n", frame.guarded ? "true" : "false");
    printf("lease.whole=%d\n", is_whole(&frame));
    EXPECT(CAMRING_OK, camring_valid(held));
    EXPECT(CAMRING_OK, camring_release(held));
}

static void info(const struct camring_ring *ring)
{
    struct camring_ring_info now = {.struct_size = sizeof now};
    EXPECT(CAMRING_OK, camring_info(ring, &now));
    number("daemon", now.daemon);
    printf("status.state=%s\nstatus.reason=%s\n", now.state_word, now.reason_word);
    printf("status.decoder=%s\nstatus.codec=%s\n", now.decoder, now.codec);
    number("status.attempt", now.attempt);
    number("status.frame_interval_us", now.frame_interval_ns / 1000);
    number("status.geometry_epoch", now.geometry_epoch);
    number("status.heartbeat_mono_ns", now.heartbeat_mono_ns);
    number("status.last_publish_mono_ns", now.last_publish_mono_ns);
    number("status.leases_revoked", now.leases_revoked);
    number("status.next_retry_mono_ns", now.next_retry_mono_ns);
    number("status.session_id", now.session_id);
    number("status.state_since_mono_ns", now.state_since_mono_ns);
    number("status.writer_epoch", now.writer_epoch);
    number("status.writer_pid", now.writer_pid);
    printf("config.camera_id=%s\n", now.camera);
    number("config.lease_policy", now.lease_policy);
    number("config.slot_count", now.slot_count);
    number("config.stale_after_ms", now.stale_after_ns / 1000000);
}

int main(void)
{
    struct camring_ring *ring = NULL;
    int code = camring_attach("camring.yard", 0, NULL, &ring);
    printf("attach=%d\nattach.text=%s\n", code, camring_strerror(code));
    if (code != CAMRING_OK)
        return 0;
    info(ring);
    latest(ring);
    lease(ring);
    EXPECT(CAMRING_OK, camring_detach(ring));
    return 0;
}
