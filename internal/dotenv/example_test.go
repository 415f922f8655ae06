package dotenv_test

import (
	"fmt"

	"github.com/keelson-go/keelson/internal/dotenv"
)

func Example() {
	variables, err := dotenv.Parse(".env", []byte("# for all services\nexport API_KEY='s3cret'\nRETRIES = 3 # at most\n"))
	for _, v := range variables {
		fmt.Println(v.Name, len(v.Value), v) // printing one does not show its value
	}
	fmt.Println(err)

	_, err = dotenv.Parse(".env", []byte("API_KEY=\"s3cret\nRETRIES=3\n"))
	fmt.Println(err)
	// Output:
	// API_KEY 6 API_KEY (.env:2)
	// RETRIES 1 RETRIES (.env:3)
	// <nil>
	// .env:1:9: this quote is never closed; put a " at the value's end
}
