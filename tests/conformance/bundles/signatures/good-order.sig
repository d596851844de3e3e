{
  "public_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEs5CVZwoQAbntUJw3eSYvh2ogcZv4r0N4qvyXIn6IbX02Dml7r2w+Faw4K76U2TjJis3+fyZWKj95Hu0jKca4BQ==",
  "signature": "MEUCIF3zeNfoAQgoIHCBs3Q7ybmLQvGTPFW/joGzkNEFQelzAiEA7zdY/wsV+cFLkUcOW4xc1QbVyGY1AIP/K9CgSC4D5W8=",
  "key_id": "52262fba030a1dc5"
}