// What PersonaKit takes from OpenSSL on Linux: sha256 and the verification of ECDSA signatures.
#include <openssl/evp.h>
#include <openssl/x509.h>
