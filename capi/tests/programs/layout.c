/* The places of all fields on 64-bit machines: they never change while the major version stays. Compiled only. */
#include <camring.h>

#define SAME(name, condition) typedef char name[(condition) ? 1 : -1]
#define AT(type, field, place) SAME(type##_##field##_is_at_##place, offsetof(struct type, field) == place)

AT(camring_options, struct_size, 0);
AT(camring_options, owner, 4);
AT(camring_options, owner_uid, 8);
AT(camring_options, presence, 12);
AT(camring_options, shm_dir, 16);
SAME(options_size, sizeof(struct camring_options) == 24);

AT(camring_frame, struct_size, 0);
AT(camring_frame, flags, 4);
AT(camring_frame, seq, 8);
AT(camring_frame, skipped, 16);
AT(camring_frame, payload, 24);
AT(camring_frame, payload_bytes, 32);
AT(camring_frame, width, 40);
AT(camring_frame, height, 44);
AT(camring_frame, pixfmt, 48);
AT(camring_frame, plane_count, 52);
AT(camring_frame, plane_offset, 56);
AT(camring_frame, plane_stride, 72);
AT(camring_frame, generation, 88);
AT(camring_frame, age_ns, 104);
AT(camring_frame, arrival_mono_ns, 112);
AT(camring_frame, arrival_real_ns, 120);
AT(camring_frame, source_unix_ns, 128);
AT(camring_frame, decoded_mono_ns, 136);
AT(camring_frame, publish_mono_ns, 144);
AT(camring_frame, publish_real_ns, 152);
AT(camring_frame, pts_ns, 160);
AT(camring_frame, duration_ns, 168);
AT(camring_frame, boot_minus_mono_ns, 176);
AT(camring_frame, lag_ns, 184);
AT(camring_frame, source_seq, 192);
AT(camring_frame, dropped_before, 200);
AT(camring_frame, gap, 208);
AT(camring_frame, payload_crc32c, 212);
AT(camring_frame, writer_epoch, 216);
AT(camring_frame, geometry_epoch, 220);
AT(camring_frame, session_id, 224);
AT(camring_frame, rtp_timestamp, 228);
AT(camring_frame, color_primaries, 232);
AT(camring_frame, color_full_range, 235);
AT(camring_frame, time_source, 236);
AT(camring_frame, fit, 239);
AT(camring_frame, pixel_aspect_width, 240);
AT(camring_frame, pixel_aspect_height, 242);
AT(camring_frame, source_width, 244);
AT(camring_frame, source_height, 248);
AT(camring_frame, scale_x, 252);
AT(camring_frame, scale_y, 256);
AT(camring_frame, offset_x, 260);
AT(camring_frame, offset_y, 264);
AT(camring_frame, value_scale, 268);
AT(camring_frame, value_offset, 272);
AT(camring_frame, pad_color, 276);
AT(camring_frame, age_approximate, 280);
AT(camring_frame, guarded, 284);
SAME(frame_size, sizeof(struct camring_frame) == 288);

AT(camring_ring_info, struct_size, 0);
AT(camring_ring_info, layout_version, 4);
AT(camring_ring_info, state, 8);
AT(camring_ring_info, reason, 12);
AT(camring_ring_info, daemon, 16);
AT(camring_ring_info, attempt, 20);
AT(camring_ring_info, seq, 24);
AT(camring_ring_info, age_ns, 32);
AT(camring_ring_info, stale_after_ns, 40);
AT(camring_ring_info, frame_interval_ns, 48);
AT(camring_ring_info, slot_capacity, 56);
AT(camring_ring_info, file_bytes, 64);
AT(camring_ring_info, slot_count, 72);
AT(camring_ring_info, lease_policy, 76);
AT(camring_ring_info, width, 80);
AT(camring_ring_info, height, 84);
AT(camring_ring_info, pixfmt, 88);
AT(camring_ring_info, writer_epoch, 92);
AT(camring_ring_info, geometry_epoch, 96);
AT(camring_ring_info, session_id, 100);
AT(camring_ring_info, writer_pid, 104);
AT(camring_ring_info, removed, 108);
AT(camring_ring_info, generation, 112);
AT(camring_ring_info, state_since_mono_ns, 128);
AT(camring_ring_info, next_retry_mono_ns, 136);
AT(camring_ring_info, last_publish_mono_ns, 144);
AT(camring_ring_info, heartbeat_mono_ns, 152);
AT(camring_ring_info, published, 160);
AT(camring_ring_info, dropped, 168);
AT(camring_ring_info, leases_revoked, 176);
AT(camring_ring_info, reconnects, 184);
AT(camring_ring_info, frames, 192);
AT(camring_ring_info, skipped, 200);
AT(camring_ring_info, retries, 208);
AT(camring_ring_info, followed, 216);
AT(camring_ring_info, resets, 224);
AT(camring_ring_info, missed_wakes, 232);
AT(camring_ring_info, state_word, 240);
AT(camring_ring_info, reason_word, 256);
AT(camring_ring_info, pixfmt_word, 280);
AT(camring_ring_info, camera, 304);
AT(camring_ring_info, segment, 376);
AT(camring_ring_info, decoder, 632);
AT(camring_ring_info, codec, 664);
SAME(info_size, sizeof(struct camring_ring_info) == 696);

int main(void)
{
    return 0;
}
