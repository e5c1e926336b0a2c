// Package deploytest checks what of deploy/ and the Tiltfile can be checked without Docker or a cluster: that every file, image,
// setting, address, secret and name they refer to exists, by reading them with the command lines of the services themselves.
package deploytest
