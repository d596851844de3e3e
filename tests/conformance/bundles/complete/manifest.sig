{"key_id": "52262fba030a1dc5", "signature": "MEUCIF3zeNfoAQgoIHCBs3Q7ybmLQvGTPFW/joGzkNEFQelzAiEA7zdY/wsV+cFLkUcOW4xc1QbVyGY1AIP/K9CgSC4D5W8="}
