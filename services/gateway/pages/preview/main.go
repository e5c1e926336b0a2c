// Command preview writes all signer pages with made-up content, to be looked at in a browser.
package main

import (
	"fmt"
	"os"

	"countersign.dev/services/gateway/pages"
)

func main() {
	dir := "out/pages"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := pages.Preview(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("see " + dir + "/index.html")
}
