/* Writes through the read-only pointer of a lease, which must end this program. */
#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    struct camring_ring *ring = NULL;
    struct camring_frame_lease *lease = NULL;
    struct camring_frame frame = {.struct_size = sizeof frame};
    EXPECT(CAMRING_OK, camring_attach(argv[1], 0, NULL, &ring));
    EXPECT(CAMRING_OK, camring_lease(ring, &frame, &lease));
    printf("leased %d\n", frame.payload[0]);
    fflush(stdout);
    *(volatile uint8_t *)(uintptr_t)frame.payload = 0;
    printf("written\n");
    return 0;
}
