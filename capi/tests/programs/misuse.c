/* Every wrong use that can be told apart: refused with a sentence, never followed. Prints code and sentence of each. */
#include "check.h"

#include <string.h>

static uint8_t buffer[1 << 16];

static void refused(int wanted, int code)
{
    CHECK(code == wanted);
    printf("%d %s\n", code, camring_strerror(code));
}

int main(void)
{
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring_info info = {.struct_size = sizeof info};
    struct camring_options options = {.struct_size = sizeof options};
    struct camring_ring *ring = NULL, *wild = (struct camring_ring *)(uintptr_t)0x1234567;
    struct camring_frame_lease *lease = NULL;
    size_t ready[1], count = 7;
    char endless[5000];

    refused(CAMRING_ERROR_ARGUMENT, camring_attach(NULL, 0, NULL, &ring));
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("yard", 0, NULL, NULL));
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("yard", -2, NULL, &ring));
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("\xff", 0, NULL, &ring));
    memset(endless, 'a', sizeof endless);
    endless[sizeof endless - 1] = 0;
    refused(CAMRING_ERROR_ARGUMENT, camring_attach(endless, 0, NULL, &ring));
    refused(CAMRING_ERROR_NAME, camring_attach("a/yard", 0, NULL, &ring));
    refused(CAMRING_ERROR_NAME, camring_attach("", 0, NULL, &ring));
    refused(CAMRING_ERROR_NOT_FOUND, camring_attach("attic", 0, NULL, &ring));
    options.owner = 9;
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("yard", 0, &options, &ring));
    options.owner = CAMRING_OWNER_UID;
    options.owner_uid = 4242;
    refused(CAMRING_ERROR_UNTRUSTED, camring_attach("yard", 0, &options, &ring));
    options.owner = CAMRING_OWNER_ANY;
    options.presence = 9;
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("yard", 0, &options, &ring));
    options.presence = CAMRING_PRESENCE_UNCOUNTED;
    options.shm_dir = "/nowhere";
    refused(CAMRING_ERROR_NOT_FOUND, camring_attach("yard", 0, &options, &ring));
    options.struct_size = 0;
    refused(CAMRING_ERROR_ARGUMENT, camring_attach("yard", 0, &options, &ring));
    CHECK(ring == NULL);

    refused(CAMRING_ERROR_ARGUMENT, camring_detach(NULL));
    refused(CAMRING_ERROR_HANDLE, camring_detach(wild));
    refused(CAMRING_ERROR_HANDLE, camring_latest(wild, buffer, sizeof buffer, &frame));
    refused(CAMRING_ERROR_ARGUMENT, camring_release(NULL));
    refused(CAMRING_ERROR_HANDLE, camring_release((struct camring_frame_lease *)(void *)wild));

    EXPECT(CAMRING_OK, camring_attach("yard", 0, NULL, &ring));
    refused(CAMRING_ERROR_ARGUMENT, camring_latest(ring, NULL, 5, &frame));
    refused(CAMRING_ERROR_ARGUMENT, camring_latest(ring, buffer, SIZE_MAX, &frame));
    refused(CAMRING_ERROR_ARGUMENT, camring_latest(ring, buffer, sizeof buffer, NULL));
    refused(CAMRING_ERROR_ARGUMENT, camring_latest(ring, buffer, sizeof buffer, (struct camring_frame *)(void *)(buffer + 1)));
    frame.struct_size = 0;
    refused(CAMRING_ERROR_ARGUMENT, camring_next(ring, buffer, sizeof buffer, 0, &frame));
    frame.struct_size = 1u << 30;
    refused(CAMRING_ERROR_ARGUMENT, camring_lease(ring, &frame, &lease));
    frame.struct_size = sizeof frame;
    refused(CAMRING_ERROR_ARGUMENT, camring_lease(ring, &frame, NULL));
    refused(CAMRING_ERROR_ARGUMENT, camring_next(ring, buffer, sizeof buffer, INT64_MIN, &frame));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait(ring, -7));
    info.struct_size = 3;
    refused(CAMRING_ERROR_ARGUMENT, camring_info(ring, &info));
    info.struct_size = sizeof info;
    refused(CAMRING_ERROR_ARGUMENT, camring_info(ring, NULL));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait_any(NULL, 1, 0, ready, &count));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait_any(&ring, 1, 0, NULL, &count));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait_any(&ring, 1, 0, ready, NULL));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait_any(&ring, 0, 0, ready, &count));
    refused(CAMRING_ERROR_ARGUMENT, camring_wait_any(&ring, CAMRING_WAIT_MAX + 1, 0, ready, &count));
    refused(CAMRING_ERROR_HANDLE, camring_wait_any(&wild, 1, 0, ready, &count));
    CHECK(count == 0);

    /* A lease is no ring and a ring is no lease. */
    EXPECT(CAMRING_OK, camring_lease(ring, &frame, &lease));
    refused(CAMRING_ERROR_HANDLE, camring_detach((struct camring_ring *)(void *)lease));
    refused(CAMRING_ERROR_HANDLE, camring_release((struct camring_frame_lease *)(void *)ring));

    EXPECT(CAMRING_OK, camring_detach(ring));
    refused(CAMRING_ERROR_HANDLE, camring_detach(ring));
    refused(CAMRING_ERROR_HANDLE, camring_info(ring, &info));
    /* The lease outlives its ring. */
    CHECK(is_whole(&frame));
    EXPECT(CAMRING_OK, camring_valid(lease));
    EXPECT(CAMRING_OK, camring_release(lease));
    refused(CAMRING_ERROR_HANDLE, camring_release(lease));
    refused(CAMRING_ERROR_HANDLE, camring_valid(lease));
    return 0;
}
