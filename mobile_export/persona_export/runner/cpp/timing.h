// How long a forward takes on this processor, and whether asking makes sense.
#pragma once

#include "bundle.h"

namespace persona {

// Whether this program runs under user-mode emulation such as qemu's: then the file that the
// kernel executes is the emulator's, for another machine than this code was compiled for.
bool emulated();

// Median microseconds of `times` forwards of the first golden input with the base in the slots,
// after a warm-up of a tenth as many. Throws InputError under emulation, whose times mean nothing.
double median_forward_us(const Bundle& bundle, std::size_t times);

}  // namespace persona
