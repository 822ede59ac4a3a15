// Prints the mean colour of every frame with OpenCV, read where the writer has put it: nothing is copied.
//
//   c++ -std=c++17 opencv.cpp $(pkg-config --cflags --libs camring opencv4) -o opencv
//   ./opencv front 100
#include <opencv2/core.hpp>

#include <camring.hpp>

#include <cstdlib>
#include <iostream>

int main(int argc, char **argv)
try {
    using namespace std::chrono_literals;
    camring::Ring ring(argc > 1 ? argv[1] : "front");
    for (long left = argc > 2 ? std::atol(argv[2]) : -1; left != 0;) {
        if (!ring.wait(10s)) {
            std::cerr << "opencv: no frame for ten seconds; the camera is " << ring.info().state_word << "\n";
            continue;
        }
        camring::Lease lease = ring.lease();
        cv::Scalar mean = cv::mean(lease.mat()); // read-only: a write into this Mat ends the program
        if (!lease.release())
            continue; // the writer needed the slot: the mean may mix two frames
        std::cout << lease->seq << " mean " << mean[0] << " " << mean[1] << " " << mean[2] << "\n";
        if (left > 0)
            left--;
    }
} catch (const camring::Error &error) {
    std::cerr << "opencv: " << error.what() << "\n";
    return EXIT_FAILURE;
}
